"""What cannot be held to is refused by the field that asked for it. Nothing ends the process."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.mesh.errors import InvalidRequestError
from services.worker.engines.forms import (
    Form,
    Grammar,
    InOrder,
    Json,
    Literal,
    OneOf,
    Regex,
    Repeated,
)
from tests.constrained import allowed, compiler, vocabulary, walk


@pytest.mark.parametrize(
    ("form", "field", "said"),
    [
        (Json('{"type": "strange"}'), "json_schema.schema", "Invalid type: strange"),
        (Json('{"not": {}}'), "json_schema.schema", '"not"'),
        (Json('{"a'), "json_schema.schema", "no JSON text"),
        (Json("[]"), "json_schema.schema", "no JSON object"),
        (Json('{"enum": []}'), "json_schema.schema", "Unsatisfiable"),
        (Json('{"type": "integer", "minimum": 2, "maximum": 1}'), "json_schema.schema", "mini"),
        (Json('{"$ref": "#"}'), "json_schema.schema", "no text"),
        (Json('{"$ref": "https://example.org/s"}'), "json_schema.schema", "example.org"),
        (Json('{"x-guidance": {}}'), "json_schema.schema", "x-guidance"),
        (Json("{}" + " " * 200_000), "json_schema.schema", "at most"),
        (Regex("a("), "regex", "unclosed group"),
        (Regex("(?=a)a"), "regex", "look-around"),
        (Regex(r"(a)\1"), "regex", "backreferences"),
        (Grammar("start: nothing"), "grammar", "nothing"),
        (Grammar('root ::= "a'), "grammar", "end of input"),
        (Grammar("words"), "grammar", "cannot be held to"),
        (OneOf(()), "choices", "nothing to choose from"),
    ],
)
def test_what_cannot_be_held_to_is_refused_by_its_field(form: Form, field: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(said)) as refused:
        compiler().compile(form)
    assert refused.value.field == f"sampling.constraint.{field}"
    assert len(refused.value.message) < 500


def test_the_part_at_fault_is_named() -> None:
    wrong = Json('{"not": {}}', field="prompt.tools[1].parameters")
    form = Repeated(InOrder((Literal("a"), OneOf((Json(), wrong)))), at_least=1)
    with pytest.raises(InvalidRequestError) as refused:
        compiler().compile(form)
    assert refused.value.field == "prompt.tools[1].parameters"


def test_a_schema_that_need_not_be_held_to_in_full_is_held_to_in_part() -> None:
    schema = json.dumps({"type": "integer", "minimum": 5, "maximum": 9, "not": {"const": 7}})
    token_ids, is_over = walk(Json(schema, strict=False), 0)
    assert is_over
    assert token_ids


def field_refused(form: Form, *, max_tokens: int) -> str | None:
    """The field by which a form is refused. None where some of it could be written."""
    try:
        constraint = compiler().compile(form)
    except InvalidRequestError as refused:
        return refused.field or ""
    draw = random.Random(0)
    size = len(vocabulary().token_bytes)
    for _ in range(max_tokens):
        may_come = allowed(constraint, size)
        if constraint.is_complete or not may_come:
            break
        constraint.accept(draw.choice(may_come))
    return None


def nested(depth: int) -> str:
    return '{"items":' * depth + "{}" + "}" * depth


def chained(rules: int) -> str:
    """Terminals that each hold the next: as deep as there are rules."""
    chain = "".join(f'A{each}: (A{each + 1} "x")*\n' for each in range(rules))
    return f'start: A0\n{chain}A{rules}: "y"\n'


HOSTILE: dict[str, Form] = {
    "what ends the library": Grammar(chained(4_500)),
    "what never comes back": Json(
        json.dumps({"allOf": [{"type": "string", "pattern": f"a{{{each}}}"} for each in range(20)]})
    ),
    "deep schema": Json(nested(2_000)),
    "deep expression": Regex("(" * 5_000 + "a" + ")" * 5_000),
    "deep grammar": Grammar("start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "deep EBNF": Grammar("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "enum of many": Json(json.dumps({"enum": [f"number {each}" for each in range(8_000)]})),
    "product of choices": Json(
        json.dumps(
            {
                "allOf": [
                    {"anyOf": [{"properties": {f"{a} {b}": {"type": "null"}}} for a in range(9)]}
                    for b in range(9)
                ]
            }
        )
    ),
    "doubling": Grammar(
        "start: A0\n"
        + "".join(f"A{each}: A{each + 1} A{each + 1}\n" for each in range(40))
        + 'A40: "a"'
    ),
    "long repeat": Regex("((a{1000}){1000}){1000}"),
    "many subsets": Regex("(a|b)*a(a|b){2000}"),
    "endless recursion": Grammar('start: start start | "a" | ""'),
    "many properties": Json(
        json.dumps({"properties": {f"key {each}": {"type": "string"} for each in range(3_000)}})
    ),
    "half a surrogate pair": Literal("\ud800"),
    "half of one in a schema": Json('{"const": "\ud800"}'),
    "half of one in an expression": Regex("\ud800"),
    "half of one in a grammar": Grammar('start: "\ud800"'),
    "nothing": Grammar(""),
    "a zero": Regex("\0"),
}


@pytest.mark.parametrize("form", HOSTILE.values(), ids=HOSTILE)
def test_hostile_forms_are_refused_or_held_to(form: Form) -> None:
    field = field_refused(form, max_tokens=20)
    assert field is None or field.startswith("sampling.constraint")


KEYWORDS: dict[str, Any] = {
    "type": ["object", "array", "string", "integer", "null", "wrong", ["string", "null"], 1],
    "properties": [{"a": {"type": "string"}}, {"a": True, "b": False}, [], {"": {}}],
    "required": [["a"], ["b", "a"], "a", [1]],
    "additionalProperties": [False, True, {"type": "null"}, 3],
    "items": [{"type": "integer"}, False, []],
    "minItems": [0, 2, -1, 10**9, "x"],
    "maxItems": [0, 1, 10**9],
    "minLength": [0, 3, -5],
    "maxLength": [1, 10**9, 1.5],
    "pattern": ["^a+$", "(", "", "\\d{1000}"],
    "format": ["date", "uuid", "unheard-of", 5],
    "enum": [[1, "a"], [], [None, {"x": []}], "a"],
    "const": [None, {"a": [1]}, "\u0000", 1e300],
    "anyOf": [[{"type": "null"}, {"$ref": "#"}], [], {}],
    "oneOf": [[{"const": 1}, {"const": 2}], [{}, {}]],
    "allOf": [[{"type": "string"}, {"maxLength": 2}], [{"$ref": "#"}]],
    "$ref": ["#", "#/$defs/none", "https://example.org", 1],
    "minimum": [0, -1e308, "0", 10**30],
    "maximum": [5, -7, 1e308],
    "multipleOf": [2, 0, 0.1, -3],
    "minProperties": [0, 2],
    "patternProperties": [{"^x": {}}, {"(": {}}],
    "uniqueItems": [True],
    "not": [{}],
}
schemas = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in KEYWORDS.items()}
)


@given(schemas, st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_odd_schemas_are_refused_or_held_to(schema: dict[str, Any], strict: bool) -> None:
    field = field_refused(Json(json.dumps(schema), strict=strict), max_tokens=60)
    assert field in (None, Json().field)


@given(st.text(max_size=30), st.sampled_from([Regex, Grammar, Json]))
@settings(max_examples=80, deadline=None)
def test_any_text_is_refused_or_held_to(text: str, kind: Any) -> None:
    field = field_refused(kind(text), max_tokens=20)
    assert field in (None, kind("").field)


@given(
    st.lists(
        st.sampled_from(
            [
                "start: ",
                "root ::= ",
                "a",
                "b: ",
                '"x"',
                "/[a-z]*/",
                "|",
                "(",
                ")",
                "*",
                "{2,}",
                "\n",
                "[^a]",
                "%ignore ",
                "%json {}",
                "<[3]>",
                "@b",
                "~",
                "&",
                "A: ",
                "A",
                "%llguidance {}",
            ]
        ),
        max_size=14,
    )
)
@settings(max_examples=80, deadline=None)
def test_odd_grammars_are_refused_or_held_to(pieces: list[str]) -> None:
    field = field_refused(Grammar("".join(pieces)), max_tokens=20)
    assert field in (None, "sampling.constraint.grammar")
