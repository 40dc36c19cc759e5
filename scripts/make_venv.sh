#!/bin/sh
# make_venv.sh FOLDER: a virtual environment made by the first Python >= 3.11 that can make one.
# PYTHON names another interpreter.
set -eu

folder=$1
reasons=""
for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    command -v "$python" >/dev/null 2>&1 || continue
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        reasons="$reasons
  $python is $("$python" --version 2>&1); 3.11 or newer is needed"
    elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        reasons="$reasons
  $python has no venv module (Debian, Ubuntu: apt-get install python3-venv)"
    else
        exec "$python" -m venv "$folder"
    fi
done
echo "error: no usable Python found.${reasons:-
  none of python3, python3.11 ... is on PATH}
  Name one: make PYTHON=/path/to/python3.11" >&2
exit 1
