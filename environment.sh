# Sourced by the launchers: leaves the interpreter to use in $PYTHON, and ends what they began.
#
# PYTHON=/path/to/python uses that environment untouched. Otherwise .venv is made beside this file,
# and requirements.txt is installed into it once, and again whenever it changes.

LIST_MISSING='
from importlib.util import find_spec
needed = "torch torchvision numpy PIL scipy sklearn yaml tqdm tensorboard matplotlib mrcfile starfile pandas"
print(*[name for name in needed.split() if not find_spec(name)], sep=", ")'

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

use_environment() {
    local stamp=.venv/requirements.installed candidate missing
    if [[ -n "${PYTHON:-}" ]]; then
        if ! missing=$("$PYTHON" -c "$LIST_MISSING" 2>/dev/null); then
            echo "error: PYTHON=$PYTHON does not run: give the full path of a Python" >&2
            exit 2
        fi
        if [[ -n $missing ]]; then
            echo "error: PYTHON=$PYTHON lacks $missing: install requirements.txt there," \
                "or unset PYTHON to let this script make .venv" >&2
            exit 2
        fi
        echo "Using the Python at $PYTHON"
        return
    fi
    PYTHON=$PWD/.venv/bin/python
    if cmp -s requirements.txt "$stamp" && [[ -x $PYTHON ]]; then
        return
    fi
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then  # none, or half of one
        for candidate in python3 python3.13 python3.12 python3.11 python3.10 none; do
            if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
                break
            fi
        done
        if [[ $candidate == none ]]; then
            echo "error: Python 3.10 or newer is needed: install it, or name one with PYTHON=" >&2
            exit 2
        fi
        echo "Making the environment .venv with $candidate ..."
        if ! "$candidate" -m venv --clear .venv; then
            rm -rf .venv
            echo "error: $candidate cannot make .venv: install its venv module (Debian: python3-venv)" >&2
            exit 2
        fi
    fi
    echo "Installing requirements.txt into .venv (a few minutes and about 6 GB, once) ..."
    if ! "$PYTHON" -m pip install --quiet --disable-pip-version-check -r requirements.txt; then
        echo "error: installing requirements.txt failed, see above: run again once that is mended" >&2
        exit 2
    fi
    cp requirements.txt "$stamp"
}
