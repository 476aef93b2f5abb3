"""Calls that keys treat apart are calls that there are."""

from __future__ import annotations

from services.gateway.keys.interceptor import OPENAI_SERVICES, TURNS, UNMETERED
from tokenmesh.gateway.v1 import chat_pb2, model_pb2
from tokenmesh.openai.v1 import model_pb2 as openai_model_pb2
from tokenmesh.openai.v1 import response_pb2


def test_calls_that_are_treated_apart_exist() -> None:
    methods = {
        f"/{service.full_name}/{name}"
        for file in (chat_pb2, model_pb2, openai_model_pb2, response_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for name in service.methods_by_name
    }
    assert methods >= UNMETERED | TURNS
    assert openai_model_pb2.DESCRIPTOR.package.startswith(OPENAI_SERVICES.strip("/").rstrip("."))
