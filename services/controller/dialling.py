"""Finds out whether a worker can be reached at its address."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.controller.suspicion import Dialled
from services.mesh.channels import open_channel

_ANSWERED = (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)


async def dial(address: str, limit_s: float) -> Dialled:
    """Connects to "host:port" and asks for its health; waits at most `limit_s` seconds.

    Any answer of a gRPC server will do: a worker that drains says NOT_SERVING, and is reachable.
    """
    async with open_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=limit_s)
        except grpc.aio.AioRpcError as error:
            if error.code() in _ANSWERED:
                return Dialled.ANSWERED
            timed_out = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return Dialled.SILENT if timed_out else Dialled.REFUSED
    return Dialled.ANSWERED
