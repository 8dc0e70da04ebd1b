# Sourced by the launchers: leaves the interpreter to use in $PYTHON.
#
# PYTHON=/path/to/python uses that environment untouched. Otherwise .venv is made beside this file,
# and requirements.txt is installed into it once, and again whenever it changes.

use_environment() {
    local stamp=.venv/requirements.installed candidate
    if [[ -n "${PYTHON:-}" ]]; then
        if ! "$PYTHON" -c 'import torch, torchvision, yaml, sklearn' 2>/dev/null; then
            echo "error: PYTHON=$PYTHON lacks packages of requirements.txt: install them there," \
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
    if [[ ! -x $PYTHON ]]; then
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
        if ! "$candidate" -m venv .venv; then
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
