#!/bin/sh
# Generates the client's code from proto/ and bundles the page into ./build, for any static server.
# Needs npm install, and protoc (Debian: protobuf-compiler).
set -eu
cd "$(dirname "$0")"

mkdir -p build/generated
protoc --proto_path=../../../proto --proto_path=node_modules/google-proto-files \
    --plugin=protoc-gen-es=node_modules/.bin/protoc-gen-es \
    --es_out=build/generated --es_opt=import_extension=js \
    tokenmesh/mesh/v1/chat.proto tokenmesh/mesh/v1/generation.proto tokenmesh/gateway/v1/chat.proto \
    google/rpc/error_details.proto
cp index.html build/
node_modules/.bin/esbuild page.js --bundle --format=esm --target=es2020 --log-level=warning \
    --outfile=build/bundle.js
