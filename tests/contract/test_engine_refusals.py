"""What an engine refuses, with the field named. Holds for every engine."""

from __future__ import annotations

from typing import Any

import pytest

from services.mesh.errors import (
    ContextLengthError,
    InvalidRequestError,
    MeshError,
    ModelNotFoundError,
    UnsupportedError,
)
from services.worker.engines.base import (
    ChatPrompt,
    Prompt,
)
from services.worker.engines.forms import Regex
from tests.contract.conftest import MAX_RUNNING, MAX_WAITING
from tests.contract.engine_client import EngineClient
from tests.contract.engine_requests import refuses, unsupported
from tests.models import CONTEXT_TOKENS


class TestRefusals:
    async def test_an_unknown_model(self, client: EngineClient) -> None:
        with pytest.raises(ModelNotFoundError):
            await client.submit(own={"model": "nobody"})
        with pytest.raises(ModelNotFoundError):
            await client.engine.tokenize("nobody", "a", add_special_tokens=True)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("temperature", 2.5),
            ("temperature", float("nan")),
            ("top_p", 1.5),
            ("top_k", -2),
            ("min_p", -0.1),
            ("repetition_penalty", 0.0),
            ("presence_penalty", 3.0),
            ("frequency_penalty", -3.0),
            ("max_tokens", 0),
            ("min_tokens", -1),
            ("choices", 0),
            ("choices", 1000),
            ("top_logprobs", 21),
            ("stop", ("",)),
            ("stop_token_ids", (10**6,)),
            ("logit_bias", {1: 200.0}),
            ("logit_bias", {10**6: 1.0}),
        ],
    )
    async def test_a_field_out_of_range(self, client: EngineClient, field: str, value: Any) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            await client.submit(**{field: value})
        assert refused.value.field == f"sampling.{field}"
        assert client.engine.load().waiting == 0

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("constraint", Regex("[ab]+")),
            ("prompt_top_logprobs", 1),
            ("best_of", 3),
            ("bad_words", ["a"]),
        ],
    )
    async def test_what_an_engine_cannot_do(
        self, client: EngineClient, field: str, value: Any
    ) -> None:
        if field not in unsupported(client):
            await self._is_done(client, field, value)
            return
        with pytest.raises(UnsupportedError) as refused:
            await client.submit(**{field: value})
        assert refused.value.field == f"sampling.{field}"

    @staticmethod
    async def _is_done(client: EngineClient, field: str, value: Any) -> None:
        output = await client.run(max_tokens=2, ignore_eos=True, **{field: value})
        assert output.finished.completion_tokens >= 2

    @pytest.mark.parametrize("field", ["stop", "bad_words"])
    async def test_a_list_of_ten_thousand_strings(self, client: EngineClient, field: str) -> None:
        if await refuses(client, field):
            return
        with pytest.raises(InvalidRequestError, match="10000 strings: at most") as refused:
            await client.submit(**{field: [f"word {number}" for number in range(10_000)]})
        assert refused.value.field == f"sampling.{field}"

    @pytest.mark.parametrize("prompt", ["", (), ChatPrompt([]), (10**6,), (-1,)])
    async def test_a_prompt_that_is_none(self, client: EngineClient, prompt: Prompt) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            await client.submit(prompt)
        assert refused.value.field is not None
        assert refused.value.field.startswith("prompt")

    async def test_a_picture(self, client: EngineClient) -> None:
        part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
        with pytest.raises(MeshError) as refused:
            await client.submit(ChatPrompt([{"role": "user", "content": [part]}]))
        assert refused.value.field == "prompt.messages[0].content"

    async def test_what_is_over_the_context(self, client: EngineClient) -> None:
        with pytest.raises(ContextLengthError) as too_much:
            await client.submit("hello", max_tokens=CONTEXT_TOKENS)
        assert too_much.value.field == "sampling.max_tokens"
        ids = await client.engine.tokenize(client.model, "hello " * 10, add_special_tokens=True)
        with pytest.raises(ContextLengthError) as too_long:
            await client.submit((tuple(ids) * CONTEXT_TOKENS)[:CONTEXT_TOKENS])
        assert too_long.value.field == "prompt"

    async def test_a_refused_request_leaves_nothing_behind(self, client: EngineClient) -> None:
        for _ in range(MAX_RUNNING + MAX_WAITING + 1):
            with pytest.raises(InvalidRequestError):
                await client.submit(temperature=9.0)
        await client.run(max_tokens=2, ignore_eos=True)
