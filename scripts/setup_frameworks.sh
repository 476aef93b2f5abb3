#!/bin/sh
# Makes the environment .frameworks, with the frameworks that tests/e2e/test_frameworks.py uses.
# They are neither ours nor needed to run anything, so they stay out of .venv.
set -eu

wanted=tests/e2e/frameworks/requirements.txt
if [ .frameworks/.installed -nt "$wanted" ]; then
    exit 0
fi
echo "setup_frameworks: installing $wanted into .frameworks"
.venv/bin/python -m venv .frameworks
.frameworks/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$wanted"
touch .frameworks/.installed
