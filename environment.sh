# Sourced by the launchers: leaves the interpreter to use in $PYTHON, and ends what they began.
#
# PYTHON=/path/to/python uses that environment untouched. Otherwise .venv is made beside this file,
# and each file of requirements is installed into it once, and again whenever it changes.
# TORCH_INDEX=URL takes torch and torchvision from that package index, of CPU builds, say.

LIST_MISSING='
import re, sys
from importlib import metadata
missing = []
for path in sys.argv[1:]:
    for name in re.findall(r"^[\w.-]+", open(path).read(), re.MULTILINE):
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
print(*missing, sep=", ")'

fail() {  # MESSAGE
    echo "error: $1" >&2
    exit 2
}

take_option() {  # --NAME VALUE...: set the variable NAME; a relative path is the caller's
    [[ $# -ge 2 && (-n $2 || $1 == --gpus) ]] || fail "$1 needs a value"
    local name=${1#--} value=$2
    case $name in
        data-dir | data-root | config | output-dir) value=$(realpath -m -- "$2") ;;
    esac
    printf -v "${name//-/_}" %s "$value"  # --data-dir sets data_dir, and so on
}

check_options() {  # NAMES...: whole numbers; and the config
    local name
    for name in "$@"; do
        [[ ${!name} =~ ^[0-9]*$ ]] || fail "--${name//_/-} is '${!name}': give a whole number"
    done
    [[ -z $config || -f $config ]] || fail "--config $config is not there: check the path"
}

stop() {  # STATUS: end all children and leave
    local children pid
    trap - INT TERM HUP  # a second Ctrl-C waits for nothing
    children=$(jobs -rp)
    for pid in $children; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $children; do wait "$pid" 2>/dev/null || true; done
    echo "stopped: what was saved is kept; the same command goes on from there" >&2
    exit "$1"
}

call() {  # COMMAND...: in the background, since bash heeds signals at once only while it waits
    local status=0
    "$@" &
    wait $! || status=$?
    return $status
}

stop_on_signals() {
    trap 'stop 129' HUP
    trap 'stop 130' INT
    trap 'stop 143' TERM
}

use_environment() {  # REQUIREMENTS...: files of what the environment must hold
    local file missing files="$*" not_used="TORCH_INDEX is not used: torch is installed already"
    if [[ -n "${PYTHON:-}" ]]; then
        missing=$("$PYTHON" -c "$LIST_MISSING" "$@" 2>/dev/null) ||
            fail "PYTHON=$PYTHON does not run: give the full path of a Python"
        [[ -z $missing ]] || fail "PYTHON=$PYTHON lacks $missing: install ${files// / and } there, \
or unset PYTHON to let this script make .venv"
        echo "Using the Python at $PYTHON"
        [[ -z ${TORCH_INDEX:-} ]] || echo "$not_used"
        return
    fi
    PYTHON=$PWD/.venv/bin/python
    local changed=() flags=() torch size=""
    for file in "$@"; do
        cmp -s "$file" ".venv/$file.installed" || changed+=("$file")
    done
    if [[ -x $PYTHON ]] && ((${#changed[@]} == 0)); then
        [[ -z ${TORCH_INDEX:-} ]] || echo "$not_used"
        return
    fi
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then  # none, or half of one
        make_environment
        changed=("$@")
    fi
    if [[ -n ${TORCH_INDEX:-} ]]; then
        echo "Installing torch and torchvision from $TORCH_INDEX into .venv ..."
        mapfile -t torch < <(grep -E '^torch(vision)?\b' requirements.txt)
        pip_install "torch and torchvision from TORCH_INDEX" --index-url "$TORCH_INDEX" "${torch[@]}"
    elif [[ $(uname -sm) == "Linux x86_64" ]] &&
        ! compgen -G '.venv/lib/*/site-packages/torch' >/dev/null; then
        size=" (a few minutes and about 6 GB, once)"
    fi
    echo "Installing ${changed[*]} into .venv$size ..."
    for file in "${changed[@]}"; do flags+=(-r "$file"); done
    pip_install "${changed[*]}" "${flags[@]}"
    for file in "${changed[@]}"; do cp "$file" ".venv/$file.installed"; done
}

make_environment() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 none; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            break
        fi
    done
    [[ $candidate != none ]] ||
        fail "Python 3.10 or newer is needed: install it, or name one with PYTHON="
    echo "Making the environment .venv with $candidate ..."
    if ! "$candidate" -m venv --clear .venv; then
        rm -rf .venv
        fail "$candidate cannot make .venv: install its venv module (Debian: python3-venv)"
    fi
}

pip_install() {  # WHAT ARGUMENTS...: of pip install
    "$PYTHON" -m pip install --quiet --disable-pip-version-check "${@:2}" ||
        fail "installing $1 failed, see above: run again once that is mended"
}
