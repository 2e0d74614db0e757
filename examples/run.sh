#!/bin/sh
# Set up and convert the digits classifier: everything a fresh machine with Python 3.11+ needs.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
.venv/bin/python -m pip install --quiet --editable '.[runtime]'
.venv/bin/mobilemodel convert examples/digits/model.onnx digits.mm --scheme mixed-4-8 --force \
    --labels examples/digits/labels.txt --mean 120 --scale 0.015625 --channels grey
.venv/bin/mobilemodel inspect digits.mm
.venv/bin/mobilemodel verify digits.mm --against examples/digits/model.onnx
.venv/bin/python examples/digits/evaluate.py digits.mm
