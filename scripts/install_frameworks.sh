#!/bin/sh
# Makes the environment .frameworks, with the frameworks that tests/e2e/test_frameworks.py uses.
# They are neither ours nor needed to run anything, and some want what others of our packages
# cannot have, so they stay out of .venv.
# Does nothing where they are there already, in the versions of constraints.txt.
set -eu

wanted=tests/e2e/frameworks/requirements.txt
versions=tests/e2e/frameworks/constraints.txt
if cat "$wanted" "$versions" | cmp -s - .frameworks/.installed; then
    exit 0
fi
echo "install_frameworks: installing the frameworks of $wanted into .frameworks"
rm -rf .frameworks
.venv/bin/python -m venv .frameworks
# Most of what they bring is never imported: compiling it all would take longer than the tests do.
.frameworks/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
    --requirement "$wanted" --constraint "$versions"
cat "$wanted" "$versions" >.frameworks/.installed
