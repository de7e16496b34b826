#!/bin/sh
# Fetch and prepare a data set: ./fetch_data.sh [omniglot] [--from DIR] [--data_dir DIR]
# Everything is in supervised_reptile/datasets/prepare.py; see ./fetch_data.sh --help.
# Relative paths are relative to the folder of this script. PYTHON names the interpreter.
set -eu
cd "$(dirname "$0")"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}" # silence TensorFlow's start-up notes
exec "${PYTHON:-python}" -m supervised_reptile.datasets.prepare "$@"
