#!/usr/bin/env bash
# Makes the virtual environment .venv and installs TokenMesh into it, with progress shown.
#
#   scripts/setup.sh EXTRAS        such as: scripts/setup.sh transformers,dev
#
# PYTHON chooses the interpreter. Without it, the first of the names below that is new enough is
# taken. An environment that is there already is kept.
set -euo pipefail

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

install() {
    .venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt \
        --editable ".[$extras]"
}

if [ -e .venv/.installed-for-running ] || [ ! -t 1 ]; then
    echo "setup: installing TokenMesh with $extras, which may take a few minutes"
    install | grep --invert-match --line-buffered "already satisfied"
else
    # pip draws how far its downloads are only where it has the terminal to itself.
    echo "setup: installing TokenMesh with $extras, which takes a few minutes"
    install
fi
echo "setup: done"
