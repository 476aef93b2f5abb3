#!/bin/sh
# Installs what the example clients in Go and C++ are built with, from Debian's packages.
# Does nothing where it is there already.
set -eu

gocode=/usr/share/gocode/src
missing=""
need() { missing="$missing $1"; }
command -v go >/dev/null || need golang-go
command -v protoc >/dev/null || need protobuf-compiler
command -v protoc-gen-go >/dev/null || need protoc-gen-go
command -v protoc-gen-go-grpc >/dev/null || need protoc-gen-go-grpc
[ -d $gocode/google.golang.org/grpc ] || need golang-google-grpc-dev
[ -d $gocode/google.golang.org/genproto ] || need golang-google-genproto-dev
# gRPC would do with version 1.3, which knows nothing of what protoc-gen-go generates.
[ -e $gocode/github.com/golang/protobuf/proto/registry.go ] || need golang-github-golang-protobuf-1-5-dev
command -v make >/dev/null || need make
command -v g++ >/dev/null || need g++
command -v pkg-config >/dev/null || need pkg-config
command -v grpc_cpp_plugin >/dev/null || need protobuf-compiler-grpc
pkg-config --exists protobuf 2>/dev/null || need libprotobuf-dev
pkg-config --exists grpc++ 2>/dev/null || need libgrpc++-dev
if [ -z "$missing" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install_toolchains: no apt-get here; install what Debian calls$missing by hand" >&2
    exit 2
fi

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
echo "install_toolchains: installing$missing"
as_root apt-get -qq update
# shellcheck disable=SC2086 # one word each
as_root apt-get -qq install --yes --no-install-recommends $missing
