#!/bin/sh
# Lays Debian's prometheus and promtool below build/prometheus, where the tests and `make` find them.
# Unpacks the package instead of installing it: needs no root, and no daemon is started.
set -eu

folder="$(cd "$(dirname "$0")/.." && pwd)/build/prometheus"
if [ -x "$folder/prometheus" ] && [ -x "$folder/promtool" ]; then
    exit 0
fi
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    mkdir -p "$folder"
    ln -sf "$(command -v prometheus)" "$(command -v promtool)" "$folder/"
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install_prometheus: no apt-get here; put prometheus and promtool on the PATH" >&2
    exit 2
fi

unpacked="$(mktemp -d)"
trap 'rm -rf "$unpacked"' EXIT
cd "$unpacked"
download() { apt-get -qq -o APT::Sandbox::User=root download prometheus; }
if ! download 2>/dev/null; then
    # The package lists of a fresh machine may be empty or old. Renewing them needs root.
    if [ "$(id -u)" -eq 0 ]; then apt-get -qq update; else sudo apt-get -qq update; fi
    download
fi
dpkg -x ./prometheus_*.deb .
mkdir -p "$folder"
mv usr/bin/prometheus usr/bin/promtool "$folder/"
"$folder/promtool" --version 2>&1 | head -n 1
