"""Texts that obey a form, for properties."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

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

ALPHABET = st.sampled_from("ab<>[{}]|/\"'\\\n :;,=é🙂")
_STRINGS = st.text(ALPHABET, max_size=8)


def texts_of(form: Form) -> st.SearchStrategy[str]:
    """Texts that obey the form."""
    match form:
        case Literal(text) | Marker(text):
            return st.just(text)
        case AnyText(without):
            return st.text(ALPHABET, max_size=12).filter(
                lambda text: not any(each in text for each in without)
            )
        case Json(schema):
            return _values(json.loads(schema)).map(json.dumps)
        case Regex(pattern):
            return st.from_regex(pattern, fullmatch=True, alphabet=ALPHABET)
        case InOrder(parts):
            return st.tuples(*map(texts_of, parts)).map("".join)
        case OneOf(parts):
            return st.one_of(*map(texts_of, parts))
        case Repeated(part, at_least, at_most, separator):
            between = texts_of(separator) if separator else st.just("")
            most = at_least + 2 if at_most is None else at_most
            return st.lists(texts_of(part), min_size=at_least, max_size=most).flatmap(
                lambda parts: between.map(lambda text: text.join(parts))
            )
        case Grammar():
            raise AssertionError("no chat format makes grammars")


def _values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of the schemas that the tests use."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if schema.get("properties"):
            required = schema.get("required", ())
            values = {key: _values(each) for key, each in schema["properties"].items()}
            return st.fixed_dictionaries(
                {key: value for key, value in values.items() if key in required},
                optional={key: value for key, value in values.items() if key not in required},
            )
        case "object":
            return st.just({})
        case "array":
            return st.lists(_values(schema["items"]), max_size=3)
        case "integer":
            return st.integers()
        case "string":
            return _STRINGS
        case "boolean":
            return st.booleans()
        case _:
            return st.one_of(st.none(), st.integers(), _STRINGS)
