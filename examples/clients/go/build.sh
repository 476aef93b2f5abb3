#!/bin/sh
# Generates the client's code from proto/ and builds ./build/chat.
#
# Takes gRPC from Debian's packages, by GOPATH: golang-go protobuf-compiler protoc-gen-go
# protoc-gen-go-grpc golang-google-grpc-dev golang-google-genproto-dev.
set -eu
cd "$(dirname "$0")"

# The protos name no Go package: each of their folders becomes the one of its name.
sources="$PWD/build/gopath/src"
options=""
files=""
for file in mesh/v1/chat mesh/v1/generation gateway/v1/chat; do
    folder="tokenmesh/$(dirname "$file")"
    files="$files tokenmesh/$file.proto"
    options="$options,Mtokenmesh/$file.proto=$folder"
done

mkdir -p "$sources"
# shellcheck disable=SC2086 # one word each
protoc --proto_path=../../../proto --go_out="$options:$sources" --go-grpc_out="$options:$sources" $files
GO111MODULE=off GOPATH="$PWD/build/gopath:/usr/share/gocode" go build -o build/chat chat.go
