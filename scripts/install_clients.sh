#!/bin/sh
# Installs the clients that the tests run beside Python's: curl, and Node.js with npm.
# Does nothing where they are there already.
set -eu

missing=""
command -v curl >/dev/null || missing="$missing curl"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
if [ -z "$missing" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install_clients: no apt-get here; install$missing by hand" >&2
    exit 2
fi

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
echo "install_clients: installing$missing"
as_root apt-get -qq update
# shellcheck disable=SC2086 # one word each
as_root apt-get -qq install --yes --no-install-recommends $missing
