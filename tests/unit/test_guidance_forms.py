"""Forms hold for whatever a model chooses: walks that take any token that may come next."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.mesh.errors import InvalidRequestError
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
    Repeated,
)
from tests.constrained import allowed, compiler, text_of, vocabulary, walk

CALL = Json(
    json.dumps(
        {
            "type": "object",
            "properties": {
                "z": {"type": "integer", "minimum": -5, "maximum": 500},
                "kind": {"enum": ["é", '"quoted"', "\n"]},
                "a": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
            },
            "required": ["a", "z", "kind"],
            "additionalProperties": False,
        }
    )
)
KINDS = ("byte_level", "metaspace")


def texts(form: Form, *, kind: str = "byte_level", walks: int = 8) -> list[str]:
    """Texts of walks, all of which came to their end."""
    found = []
    for seed in range(walks):
        token_ids, is_over = walk(form, seed, kind=kind)
        assert is_over
        found.append(text_of(token_ids, kind))
    return found


@pytest.mark.parametrize("kind", KINDS)
class TestLeaves:
    def test_json_is_what_the_schema_accepts_with_keys_in_its_order(self, kind: str) -> None:
        for text in texts(CALL, kind=kind):
            jsonschema.validate(json.loads(text), json.loads(CALL.schema))
            assert list(json.loads(text)) == ["z", "kind", "a"]
            assert not re.search(r"\s{36}", text)

    @pytest.mark.parametrize(
        "pattern", [r"[a-c]{2,5}\d", r"^(ja|nein)$", r"(é|\n)x?", r"a/b\\", r"[^a]{3}"]
    )
    def test_a_regular_expression_matches_the_whole(self, kind: str, pattern: str) -> None:
        for text in texts(Regex(pattern), kind=kind):
            assert re.fullmatch(pattern, text)

    def test_choices_may_begin_alike(self, kind: str) -> None:
        choices = ("a", "ab", 'ab"c', "Grüße 🙂\n", "\\")
        form = OneOf(tuple(map(Literal, choices)))
        assert set(texts(form, kind=kind, walks=40)) == set(choices)


class TestGrammars:
    def test_larks(self) -> None:
        form = Grammar('?start: sum\nsum: NUM ("+" NUM){1,2}\nNUM: /[0-9]{1,2}/\n%ignore / /')
        for text in texts(form):
            assert re.fullmatch(r" *\d+( *\+ *\d+){1,2} *", text), text

    def test_ebnf(self) -> None:
        form = Grammar('root ::= item (", " item)?\nitem ::= "x" | [0-9] ("y" | "z")')
        for text in texts(form):
            assert re.fullmatch(r"(x|\d[yz])(, (x|\d[yz]))?", text)


class TestTrees:
    def test_text_up_to_a_literal_then_json(self) -> None:
        form = InOrder((AnyText(("</think>",)), Marker("</think>"), Regex(r"[ \n]{0,2}"), CALL))
        constraint = compiler().compile(form)
        said = "a </thin </think>\n"
        ids = {piece: each for each, piece in enumerate(vocabulary().token_bytes)}
        for byte in said.encode():
            constraint.accept(ids[bytes((byte,))])
        size = len(vocabulary().token_bytes)
        may_come = {vocabulary().token_bytes[each] for each in allowed(constraint, size)}
        assert b"{" in may_come
        assert may_come <= {b"{", b" ", b"\n"} | {each for each in may_come if b"{" in each}

    def test_a_marker_is_its_token_and_text_never_holds_it(self) -> None:
        form = InOrder((Regex("[ab]{0,3}"), Marker("<|user|>"), CALL, Marker("<|system|>")))
        markers = vocabulary().marker_ids
        for seed in range(5):
            token_ids, _ = walk(form, seed)
            assert token_ids.count(markers["<|user|>"]) == 1
            assert token_ids[-1] == markers["<|system|>"]

    def test_calls_one_after_the_other(self) -> None:
        one = InOrder((Marker("<call>"), Literal("\n"), CALL, Literal("\n"), Marker("</call>")))
        form = Repeated(one, at_least=1, at_most=3, separator=Literal("\n"))
        counts = set()
        for text in texts(form, walks=12):
            calls = re.findall(r"<call>\n(.*?)\n</call>(?:\n|$)", text, re.DOTALL)
            counts.add(len(calls))
            for call in calls:
                jsonschema.validate(json.loads(call), json.loads(CALL.schema))
        assert counts == {1, 2, 3}

    def test_one_of_several_tools(self) -> None:
        def call(name: str, schema: str) -> Form:
            return InOrder(
                (Literal(f'{{"name": "{name}", "arguments": '), Json(schema), Literal("}"))
            )

        form = OneOf((call("f", CALL.schema), call("g", '{"type": "boolean"}')))
        made = [json.loads(text) for text in texts(form, walks=12)]
        assert {each["name"] for each in made} == {"f", "g"}
        assert all((each["name"] == "g") == isinstance(each["arguments"], bool) for each in made)

    def test_a_form_may_be_nothing_at_all(self) -> None:
        assert texts(Repeated(Literal("a"), at_most=0), walks=2) == ["", ""]
        assert texts(InOrder(()), walks=2) == ["", ""]

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
    @settings(max_examples=60, deadline=None)
    def test_any_literal(self, text: str) -> None:
        token_ids, is_over = walk(Literal(text), 0)
        assert is_over
        assert text_of(token_ids) == text


class TestState:
    def test_it_is_rebuilt_from_the_output(self) -> None:
        size = len(vocabulary().token_bytes)
        form = InOrder((Regex("[a-z ]{0,8}"), Marker("<|user|>"), CALL))
        for seed in range(4):
            token_ids, _ = walk(form, seed)
            step_by_step = compiler().compile(form)
            rebuilt = compiler().compile(form)
            rebuilt.rebuild(token_ids[:3])
            for cut, token_id in enumerate(token_ids):
                rebuilt.rebuild(token_ids[:cut])
                assert allowed(rebuilt, size) == allowed(step_by_step, size)
                step_by_step.accept(token_id)
            assert step_by_step.is_complete

    def test_outputs_of_one_form_stand_apart(self) -> None:
        one, other = (compiler().compile(Regex("[ab]c")) for _ in range(2))
        size = len(vocabulary().token_bytes)
        before = allowed(other, size)
        one.accept(allowed(one, size)[0])
        assert allowed(other, size) == before

    def test_a_token_that_does_not_fit_is_refused(self) -> None:
        constraint = compiler().compile(Literal("a"))
        with pytest.raises(InvalidRequestError, match="does not fit"):
            constraint.accept(next(iter(vocabulary().end_ids)))
