#!/bin/sh
# Fetch and prepare a data set: ./fetch_data.sh [omniglot] [--from DIR] [--data_dir DIR]
# Everything is in supervised_reptile/datasets/prepare.py; see ./fetch_data.sh --help.
# PYTHON names the interpreter.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m supervised_reptile.datasets.prepare "$@"
