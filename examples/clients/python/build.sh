#!/bin/sh
# Generates the client's code from proto/ into ./build. PYTHON names the interpreter, which needs
# requirements.txt installed.
set -eu
cd "$(dirname "$0")"

mkdir -p build
"${PYTHON:-python3}" -m grpc_tools.protoc --proto_path=../../../proto \
    --python_out=build --pyi_out=build --grpc_python_out=build \
    tokenmesh/mesh/v1/chat.proto tokenmesh/mesh/v1/generation.proto tokenmesh/gateway/v1/chat.proto
