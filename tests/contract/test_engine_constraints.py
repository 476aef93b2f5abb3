"""Outputs that are held to a form, by every engine that does not refuse to."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from services.mesh.errors import InvalidRequestError
from services.worker.engines.base import FinishReason, OutputSoFar
from services.worker.engines.forms import (
    AnyText,
    Form,
    Grammar,
    InOrder,
    Json,
    Literal,
    Marker,
    OneOf,
    Regex,
)
from tests.contract.conftest import SERIAL_MODELS
from tests.contract.engine_client import EngineClient

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "number": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["x", "Grüße 🙂", '"\\']},
        "flags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["kind", "number", "flags"],
    "additionalProperties": False,
}
JSON = Json(json.dumps(SCHEMA))
ROOM = {"max_tokens": 480}

FIELDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0, "frequency_penalty": 1.0},
    "hot": {"temperature": 2.0},
    "filters": {"temperature": 1.5, "top_k": 5, "top_p": 0.5, "min_p": 0.2},
    "penalties": {"repetition_penalty": 1.5, "presence_penalty": 2.0, "frequency_penalty": 2.0},
    "bad words": {"bad_words": ("true", "99", "Gr")},
    "a bad word that must come": {"bad_words": ("number", '"')},
    "min_tokens": {"min_tokens": 400},
    "ignore_eos": {"ignore_eos": True},
    "biases": {"logit_bias": {0: 100.0, 5: -100.0, 60: 50.0}},
    "logprobs": {"top_logprobs": 2},
    "stop string that cannot come": {"stop": ("no such text",)},
}

OTHERS: list[tuple[Form, str]] = [
    (Regex(r"[a-c]{3}(\d|é)"), r"[a-c]{3}(\d|é)"),
    (OneOf((Literal("Paris"), Literal("São Paulo"))), "Paris|São Paulo"),
    (Grammar('root ::= "a" b{1,2}\nb ::= "x" | [0-9]'), r"a[x0-9]{1,2}"),
    (InOrder((Literal("<a>"), Regex("[xy]{0,2}"), Literal("</a>"))), "<a>[xy]{0,2}</a>"),
    (
        InOrder((Regex("[xy]{1,3}"), Marker("<|user|>"), Json('{"type": "boolean"}'))),
        r"[xy]{1,3}<\|user\|>\s*(true|false)",
    ),
]


ABLE = ("transformers", *(f"transformers-{each}" for each in SERIAL_MODELS))
pytestmark = pytest.mark.parametrize("start_engine", ABLE, indirect=True)


def check(text: str) -> None:
    value = json.loads(text)
    jsonschema.validate(value, SCHEMA)
    assert list(value) == ["number", "kind", "flags"]


class TestExactness:
    async def test_the_output_is_what_the_schema_accepts(self, client: EngineClient) -> None:
        for name, fields in FIELDS.items():
            output = await client.run(constraint=JSON, seed=3, **ROOM | fields)
            assert output.finished.reason is FinishReason.STOP, name
            assert output.finished.stop_token_id is None
            check(output.text)

    async def test_every_choice_is(self, client: EngineClient) -> None:
        for output in await client.run_choices(3, constraint=JSON, seed=3, **ROOM):
            check(output.text)

    async def test_the_best_of_several_is(self, client: EngineClient) -> None:
        check((await client.run(constraint=JSON, best_of=3, seed=4, **ROOM)).text)

    async def test_max_tokens_may_cut_it(self, client: EngineClient) -> None:
        output = await client.run(constraint=JSON, max_tokens=4)
        assert output.finished.reason is FinishReason.LENGTH
        assert output.finished.completion_tokens == 4
        with pytest.raises(json.JSONDecodeError):
            json.loads(output.text)

    async def test_a_stop_string_ends_it_inside(self, client: EngineClient) -> None:
        output = await client.run(constraint=JSON, stop=('"',), seed=1, **ROOM)
        assert output.finished.stop_string == '"'
        assert re.fullmatch(r"\s*\{\s*", output.text)

    async def test_other_forms(self, client: EngineClient) -> None:
        for form, pattern in OTHERS:
            output = await client.run(constraint=form, skip_special_tokens=False, **ROOM)
            assert output.finished.reason is FinishReason.STOP
            assert re.fullmatch(pattern, output.text), output.text


class TestEnd:
    async def test_it_comes_only_where_the_form_may_end(self, client: EngineClient) -> None:
        end_first = {"logit_bias": {0: 100.0}, "temperature": 0.0}
        output = await client.run(constraint=Regex("a{3}b*"), **ROOM | end_first)
        assert output.text == "aaa"
        assert output.finished.reason is FinishReason.STOP

    async def test_what_keeps_it_away_does_where_the_form_can_go_on(
        self, client: EngineClient
    ) -> None:
        end_first = {"logit_bias": {0: 100.0}, "temperature": 0.0, "max_tokens": 30}
        for fields, least in (({"ignore_eos": True}, 30), ({"min_tokens": 9}, 9)):
            output = await client.run(constraint=Regex("a{2}b*"), **end_first | fields)
            assert least <= output.finished.completion_tokens < least + 2
            assert re.fullmatch("aab*", output.text)

    async def test_nothing_follows_a_text_without_an_end_of_its_own(
        self, client: EngineClient
    ) -> None:
        output = await client.run(constraint=AnyText(("a", "e")), max_tokens=40, seed=2)
        assert not set("ae") & set(output.text)


class TestResume:
    async def test_the_state_is_rebuilt_from_the_output_so_far(self, client: EngineClient) -> None:
        fields = {"constraint": JSON, "seed": 7, "temperature": 1.5, **ROOM}
        whole = await client.run(**fields)
        check(whole.text)
        for cut in (1, 2, len(whole.token_ids) // 2, len(whole.token_ids) - 1):
            sent = "".join(chunk.text for chunk in whole.chunks[:cut])
            so_far = OutputSoFar(tuple(whole.token_ids[:cut]), cut + 1, len(sent.encode()))
            rest = await client.run(own={"output_so_far": {0: so_far}}, **fields)
            assert whole.token_ids[:cut] + rest.token_ids == whole.token_ids
            assert sent + rest.text == whole.text
            assert rest.finished.reason is FinishReason.STOP

    async def test_one_that_was_complete_only_ends(self, client: EngineClient) -> None:
        fields = {"constraint": JSON, "seed": 7, **ROOM}
        whole = await client.run(**fields)
        so_far = OutputSoFar(
            tuple(whole.token_ids), len(whole.token_ids) + 1, len(whole.text.encode())
        )
        rest = await client.run(own={"output_so_far": {0: so_far}}, **fields)
        assert (rest.token_ids, rest.text) == ([], "")
        assert rest.finished.completion_tokens == whole.finished.completion_tokens

    async def test_an_output_that_does_not_have_the_form_is_refused(
        self, client: EngineClient
    ) -> None:
        with pytest.raises(InvalidRequestError, match="does not fit the form"):
            await client.submit(
                constraint=JSON, own={"output_so_far": {0: OutputSoFar((3, 4), 3, 0)}}
            )
        assert client.engine.load().waiting == 0


class TestNeighbours:
    async def test_they_get_what_they_get_alone(self, client: EngineClient) -> None:
        free = {"max_tokens": 30, "seed": 5, "temperature": 0.9, "ignore_eos": True}
        alone = await client.run(**free)
        held = [await client.submit(constraint=JSON, seed=seed, **ROOM) for seed in range(2)]
        beside = await client.run(**free)
        assert beside.token_ids == alone.token_ids
        for key in held:
            check((await client.end_of(key)).text)


class TestRefusals:
    async def test_what_cannot_be_held_to_is_refused_and_takes_no_place(
        self, client: EngineClient
    ) -> None:
        for form, field in ((Json('{"not": {}}'), "json_schema.schema"), (Regex("a("), "regex")):
            with pytest.raises(InvalidRequestError) as refused:
                await client.submit(constraint=form)
            assert refused.value.field == f"sampling.constraint.{field}"
            assert client.engine.load().waiting == 0
