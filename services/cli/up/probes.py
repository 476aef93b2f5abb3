"""Questions that show whether a part of a local mesh, and then the whole, can be used."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Collection
from typing import TYPE_CHECKING

import grpc

from services.cli.up.supervisor import POLL_INTERVAL_S, Child
from services.mesh.channels import open_channel
from services.mesh.process import ReadyNotice, read_ready
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc
from tokenmesh.mesh.v1 import model_pb2

if TYPE_CHECKING:
    from tokenmesh.controller.v1.admin_pb2_grpc import AdminServiceAsyncStub

ANSWER_LIMIT_S = 5.0
CAPABILITY_PREFIX = "CAPABILITY_"

# Straight to this machine, whatever proxy the environment names.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _get(url: str, key: str = "") -> bytes | None:
    """The body of a 200 answer; None for any other, and while nobody answers."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - always http
        with _direct.open(request, timeout=ANSWER_LIMIT_S) as response:
            return bytes(response.read())
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return None


async def ready_notice(child: Child) -> ReadyNotice | None:
    """What a service wrote once it served; None until then."""
    return None if child.plan.ready_file is None else read_ready(child.plan.ready_file)


async def envoy_live(admin_address: str) -> bool | None:
    """True once Envoy has taken up its configuration; None until then."""
    body = await asyncio.to_thread(_get, f"http://{admin_address}/ready")
    return None if body is None else True


async def until_attached(controller_address: str, workers: int) -> dict[str, list[str]]:
    """What each model can do, such as "CHAT", once so many workers hold a lease."""
    async with open_channel(controller_address) as channel:
        admin: AdminServiceAsyncStub = admin_pb2_grpc.AdminServiceStub(channel)
        while True:
            try:
                request = admin_pb2.ListWorkersRequest()
                listed = await admin.ListWorkers(request, timeout=ANSWER_LIMIT_S)
            except grpc.aio.AioRpcError:
                listed = admin_pb2.ListWorkersResponse()
            if len(listed.workers) >= workers:
                return {
                    model.name: [
                        model_pb2.Capability.Name(each).removeprefix(CAPABILITY_PREFIX)
                        for each in model.capabilities
                    ]
                    for worker in listed.workers
                    for model in worker.models
                }
            await asyncio.sleep(POLL_INTERVAL_S)


async def until_listed(base_url: str, key: str, expected: Collection[str]) -> tuple[str, ...]:
    """The models that clients see at GET /v1/models, once those expected are among them. `key` may
    be empty.
    """
    while True:
        body = await asyncio.to_thread(_get, f"{base_url}/models", key)
        if body is not None:
            models = tuple(str(model["id"]) for model in json.loads(body)["data"])
            if models and set(expected).issubset(models):
                return models
        await asyncio.sleep(POLL_INTERVAL_S)
