#!/bin/sh
# Fetch and prepare a data set:
#   ./fetch_data.sh [omniglot|miniimagenet|folder] [--from DIR] [--data_dir DIR]
# See ./fetch_data.sh --help. Systems without a shell: python -m supervised_reptile fetch.
# The interpreter is $PYTHON, or that of the active or else the README's virtual environment.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -n "${VIRTUAL_ENV:-}" ]; then
    PYTHON=$VIRTUAL_ENV/bin/python
  elif [ -x "$here/.venv/bin/python" ]; then
    PYTHON=$here/.venv/bin/python
  fi
fi
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m supervised_reptile fetch "$@"
