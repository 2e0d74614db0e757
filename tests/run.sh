#!/bin/sh
# Set up and run lint, types and tests: everything a fresh machine with Python 3.11+ needs.
#   sh tests/run.sh [pytest arguments]      VENV=.venv PYTHON=python3 may be set
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
"$VENV/bin/python" -m pip install --quiet --editable '.[runtime]' --group test --group lint
"$VENV/bin/ruff" check .
"$VENV/bin/mypy"
export OPENBLAS_NUM_THREADS=1
exec "$VENV/bin/python" -m pytest "$@"
