#!/bin/sh
# Starts Envoy in its official image: fills in envoy.yaml from the environment, then becomes Envoy.
# Arguments are passed on to Envoy. See the head of envoy.yaml for what each variable means.
set -eu

folder=${TOKENMESH_ENVOY_FOLDER:-/etc/tokenmesh}

: "${LISTEN_HOST:=0.0.0.0}" "${LISTEN_PORT:=8000}"
: "${GATEWAY_HOST:=gateway}" "${GATEWAY_PORT:=21003}"
: "${ADMIN_HOST:=127.0.0.1}" "${ADMIN_PORT:=9901}"
: "${METRICS_HOST:=0.0.0.0}" "${METRICS_PORT:=9902}"
: "${CORS_ORIGIN_REGEX:=.*}" "${ACCESS_LOG_PATH:=/dev/null}"
: "${DESCRIPTOR_PATH:=$folder/tokenmesh.pb}" "${ERRORS_LUA_PATH:=$folder/errors.lua}"

rendered=$(cat "$folder/envoy.yaml")
for name in LISTEN_HOST LISTEN_PORT GATEWAY_HOST GATEWAY_PORT ADMIN_HOST ADMIN_PORT \
  METRICS_HOST METRICS_PORT CORS_ORIGIN_REGEX ACCESS_LOG_PATH DESCRIPTOR_PATH ERRORS_LUA_PATH; do
  eval "value=\$$name"
  case $value in
    *"'"* | *"
"*)
      echo "envoy: $name may hold neither a quote nor a line break" >&2
      exit 2
      ;;
  esac
  # What means something to sed in a replacement stands for itself.
  escaped=$(printf '%s' "$value" | sed 's/[&|\\]/\\&/g')
  rendered=$(printf '%s\n' "$rendered" | sed "s|\${$name}|$escaped|g")
done

if printf '%s\n' "$rendered" | grep -q '\${'; then
  echo "envoy: envoy.yaml has a variable that entrypoint.sh does not know" >&2
  exit 2
fi
exec "${ENVOY_BINARY:-envoy}" --config-yaml "$rendered" --disable-hot-restart "$@"
