"""How commands reach a mesh that runs: addresses, channels, and one clear line when it fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import grpc
import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cli.client_key import API_KEY_VARIABLE, with_key
from services.cli.options import DEFAULT_URL
from services.cli.up import notice
from services.mesh import status
from services.mesh.channels import CHANNEL_OPTIONS
from services.mesh.options import DEFAULT_CONTROLLER

CALL_LIMIT_S = 30.0
# Of a controller where there are others: one that hangs must not hold a command up.
ANSWER_LIMIT_S = 1.0
HTTPS_PORT = 443
HTTP_PORT = 80


def fail(message: str, exit_code: int = 1) -> NoReturn:
    """Prints one line to standard error and ends the command."""
    print(f"tokenmesh: {message}", file=sys.stderr)
    raise typer.Exit(exit_code)


def mesh_url(url: str | None) -> str:
    """The URL that was given, else that of the newest mesh running here, else the default."""
    if url is not None:
        return url
    newest = next(notice.running_meshes(Path.cwd()), None)
    return DEFAULT_URL if newest is None else newest.base_url


def controller_addresses(controller: str | None) -> list[str]:
    """The addresses that were given, else those of the newest mesh here, else the default."""
    given = (controller or "").replace(",", " ").split()
    if given:
        return given
    newest = next(notice.running_meshes(Path.cwd()), None)
    return [DEFAULT_CONTROLLER] if newest is None else newest.addresses("controller")


@contextmanager
def open_controller(controller: str | None) -> Iterator[grpc.Channel]:
    """A channel to a controller: any of them will do, so it is the first that answers.

    A call on it that fails ends the command with one line.
    """
    addresses = controller_addresses(controller)
    # Where none answers, the call that follows tells why.
    chosen = next(filter(_answers, addresses), addresses[0]) if addresses[1:] else addresses[0]
    with open_url(chosen) as channel:
        yield channel


def _answers(address: str) -> bool:
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_LIMIT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def open_mesh(url: str | None) -> Iterator[grpc.Channel]:
    """A channel to what clients use of a mesh (see `mesh_url`), with the key for it.

    A call on it that fails ends the command with one line.
    """
    with open_url(mesh_url(url)) as channel:
        yield with_key(channel)


@contextmanager
def open_url(url: str) -> Iterator[grpc.Channel]:
    """A channel to the gRPC services behind a URL or a bare "host:port".

    A call on it that fails ends the command with one line.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        port = parts.port or (HTTPS_PORT if parts.scheme == "https" else HTTP_PORT)
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        fail(f"{url!r} is no address: give one such as {DEFAULT_URL}", exit_code=2)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{host}:{port}"
    channel = (
        grpc.secure_channel(address, grpc.ssl_channel_credentials(), options=CHANNEL_OPTIONS)
        if parts.scheme == "https"
        else grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    )
    with channel:
        try:
            yield channel
        except grpc.RpcError as error:
            fail(describe(error, address))


def describe(error: grpc.RpcError, address: str) -> str:
    """What went wrong with a call, in one line."""
    failure = status.from_rpc_error(error)
    message = " ".join(failure.message.split())
    if isinstance(error, grpc.Call) and "failed to connect to all addresses" in message:
        return (
            f"nobody answers at {address}: start a mesh with 'tokenmesh up', "
            "or say where one is (see --help)"
        )
    if failure.code == "UNAUTHENTICATED":
        return f"{message}; commands take it from {API_KEY_VARIABLE}"
    if failure.code == "UNIMPLEMENTED":
        return f"{address} does not offer this: {message}"
    return message


def print_json(messages: Mapping[str, list[Message]]) -> None:
    """Prints protobuf messages as JSON, with the field names of the protos."""
    as_dict = partial(
        json_format.MessageToDict,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    print(json.dumps({name: list(map(as_dict, each)) for name, each in messages.items()}, indent=2))
