#!/bin/sh
# Makes the virtual environment .venv and installs TokenMesh into it, with progress shown.
#
#   scripts/setup.sh EXTRAS        such as: scripts/setup.sh transformers,dev
#
# PYTHON chooses the interpreter. Without it, the first of the names below that is new enough is
# taken. An environment that is there already is kept.
set -eu

extras=$1
oldest="3.11"

new_enough() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

fail() {
    echo "setup: $*" >&2
    exit 2
}

if [ ! -x .venv/bin/pip ]; then
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || fail "PYTHON=$PYTHON is no Python $oldest or newer"
    else
        for name in python3 python3.11 python3.12 python3.13 python3.14; do
            if new_enough "$name"; then
                PYTHON=$name
                break
            fi
        done
        [ -n "${PYTHON:-}" ] || fail "TokenMesh needs Python $oldest or newer: install it, or name it: make PYTHON=/path/to/python3"
    fi
    echo "setup: making .venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv .venv || {
        rm -rf .venv
        fail "$PYTHON cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
    }
fi
echo "setup: installing TokenMesh with $extras; the first time takes a few minutes"
.venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable ".[$extras]"
echo "setup: done"
