#!/usr/bin/env bash
# Every check there is: ruff, mypy, import-linter and pytest. Makes .venv first where there is none.
#
#   ./run_tests.sh                    all of them
#   ./run_tests.sh tests/test_x.py    further arguments go to pytest
#   PYTHON=/path/to/python ./run_tests.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./environment.sh
use_environment requirements.txt requirements-dev.txt

echo "ruff ..."
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check --quiet .
echo "mypy ..."
"$PYTHON" -m mypy
echo "import-linter ..."
"$PYTHON" -c "from importlinter.cli import lint_imports_command; lint_imports_command()"
echo "pytest ..."
if [[ $# == 0 ]]; then
    # All of them, in as many processes as there are cores; a thread each is faster then
    set -- --numprocesses auto --maxprocesses 4 --dist worksteal
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
"$PYTHON" -m pytest "$@"
