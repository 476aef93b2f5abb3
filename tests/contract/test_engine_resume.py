"""A request goes on from what another engine has produced. Holds for every engine."""

from __future__ import annotations

from typing import Any

import pytest

from services.mesh.errors import (
    InvalidRequestError,
)
from services.worker.engines.base import (
    FinishReason,
    OutputSoFar,
    Started,
)
from tests.contract.engine_client import EngineClient


class TestResume:
    @pytest.mark.parametrize("delivered", ["all", "half"])
    async def test_a_sequence_goes_on_as_if_it_had_not_moved(
        self, client: EngineClient, delivered: str
    ) -> None:
        fields: dict[str, Any] = {
            "max_tokens": 40,
            "seed": 11,
            "temperature": 0.9,
            "ignore_eos": True,
            "frequency_penalty": 0.5,
            "repetition_penalty": 1.1,
        }
        whole = await client.run("Grüße", **fields)
        for cut in (1, 2, 13, 39):
            sent = "".join(chunk.text for chunk in whole.chunks[:cut]).encode()
            if delivered == "half":
                sent = sent.decode()[: len(sent.decode()) // 2].encode()
            so_far = OutputSoFar(tuple(whole.token_ids[:cut]), cut + 1, len(sent))
            rest = await client.run("Grüße", own={"output_so_far": {0: so_far}}, **fields)
            assert whole.token_ids[:cut] + rest.token_ids == whole.token_ids
            assert sent.decode() + rest.text == whole.text
            assert rest.numbers == list(range(cut + 1, cut + 1 + len(rest.events)))
            assert rest.finished.completion_tokens == 40

    async def test_who_knows_what_is_delivered_is_told_the_text_and_gets_none_of_it(
        self, client: EngineClient
    ) -> None:
        fields: dict[str, Any] = {"max_tokens": 30, "seed": 5, "ignore_eos": True}
        whole = await client.run("Grüße", temperature=0.9, **fields)
        for cut in (0, 7, 30):
            so_far = OutputSoFar(tuple(whole.token_ids[:cut]), cut + 1, None)
            own = {"output_so_far": {0: so_far}}
            rest = await client.run("Grüße", own=own, temperature=0.9, **fields)
            first = rest.events[0]
            assert isinstance(first, Started)
            assert first.text_so_far == "".join(chunk.text for chunk in whole.chunks[:cut])
            assert first.text_so_far + rest.text == whole.text

    async def test_a_stop_string_that_began_before_the_cut_is_found(
        self, client: EngineClient
    ) -> None:
        fields: dict[str, Any] = {"max_tokens": 40, "seed": 3, "ignore_eos": True}
        whole = await client.run(temperature=0.8, **fields)
        middle = len("".join(chunk.text for chunk in whole.chunks[:20]))
        stop = whole.text[middle - 2 : middle + 2]
        fields |= {"stop": (stop,), "temperature": 0.8}
        stopped = await client.run(**fields)
        cut = min(20, len(stopped.token_ids) - 1)
        sent = "".join(chunk.text for chunk in stopped.chunks[:cut])
        so_far = OutputSoFar(tuple(stopped.token_ids[:cut]), cut + 1, len(sent.encode()))
        rest = await client.run(own={"output_so_far": {0: so_far}}, **fields)
        assert sent + rest.text == stopped.text
        assert rest.finished.stop_string == stop

    async def test_a_sequence_that_was_over_only_ends(self, client: EngineClient) -> None:
        fields: dict[str, Any] = {"max_tokens": 10, "seed": 11, "ignore_eos": True}
        whole = await client.run(**fields)
        so_far = OutputSoFar(tuple(whole.token_ids), 11, len(whole.text.encode()))
        rest = await client.run(own={"output_so_far": {0: so_far}}, **fields)
        assert rest.token_ids == []
        assert rest.finished.reason is FinishReason.LENGTH
        assert rest.finished.completion_tokens == 10
        await client.until_idle()

    async def test_a_choice_that_is_not_there_cannot_go_on(self, client: EngineClient) -> None:
        with pytest.raises(InvalidRequestError) as refused:
            await client.submit(own={"output_so_far": {3: OutputSoFar((1,), 2, 0)}})
        assert refused.value.field == "output_so_far.choice_index"
