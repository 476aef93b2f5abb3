#!/bin/sh
# Installs Chromium, in which the tests open the example page.
# Does nothing where a Chromium or Chrome is there already.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
        exit 0
    fi
done
if ! command -v apt-get >/dev/null; then
    echo "install_browser: no apt-get here; put chromium or google-chrome on the PATH" >&2
    exit 2
fi

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
echo "install_browser: installing chromium"
as_root apt-get -qq update
as_root apt-get -qq install --yes --no-install-recommends chromium fonts-liberation
