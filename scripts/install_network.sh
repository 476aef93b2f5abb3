#!/bin/sh
# Installs `ip`, with which the chaos tests make network namespaces that they can cut off.
# Does nothing where it is there already.
set -eu

if command -v ip >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install_network: no apt-get here; install iproute2 by hand" >&2
    exit 2
fi

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
echo "install_network: installing iproute2"
as_root apt-get -qq update
as_root apt-get -qq install --yes --no-install-recommends iproute2
