#!/bin/sh
# Watches a mesh that `tokenmesh up` started, with the rules of deploy/prometheus.
#
#   scripts/prometheus.sh RUN_FOLDER [PORT] [INTERVAL]
#
# RUN_FOLDER is the one that `tokenmesh up` prints: it holds prometheus-targets.json. The page is at
# http://127.0.0.1:PORT (default 9090). INTERVAL (default 5s) is how often to scrape and evaluate.
set -eu

root="$(cd "$(dirname "$0")/.." && pwd)"
if [ $# -lt 1 ] || [ ! -f "$1/prometheus-targets.json" ]; then
    echo "prometheus: give the run folder of a mesh, which holds prometheus-targets.json" >&2
    exit 2
fi
run_folder="$(cd "$1" && pwd)"
port="${2:-9090}"
interval="${3:-5s}"

"$root/scripts/install_prometheus.sh" >&2
folder="$run_folder/prometheus"
mkdir -p "$folder/targets"
cp "$root"/deploy/prometheus/*.yaml "$folder/"
sed -i "s/^\(  *\(scrape\|evaluation\)_interval: \).*/\1$interval/; s/^\(  *scrape_timeout: \).*/\1$interval/" \
    "$folder/prometheus.yaml"
ln -sf "$run_folder/prometheus-targets.json" "$folder/targets/"
exec "$root/build/prometheus/prometheus" \
    --config.file="$folder/prometheus.yaml" \
    --storage.tsdb.path="$folder/data" \
    --web.listen-address="127.0.0.1:$port" \
    --log.level=warn
