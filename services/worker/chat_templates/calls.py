"""Calls and results of a conversation so far, as a template takes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from services.worker.chat_templates import tools_as_text
from services.worker.chat_templates.traits import SHORT_ID_LENGTH, TemplateTraits

Written: TypeAlias = Callable[[Sequence[tuple[str, str]]], str]


def with_known_calls(
    messages: Sequence[dict[str, Any]],
    traits: TemplateTraits,
    written: Written,
    *,
    as_text: bool,
) -> list[dict[str, Any]]:
    """The conversation with calls and results in the template's own way, or as text.

    Args:
        written: makes a text of calls, of which it gets the names and the arguments.
        as_text: whether calls are text even where the template has a place for them.
    """
    if not any(each.get("tool_calls") or each["role"] == "tool" for each in messages):
        return list(messages)
    if as_text or not traits.takes_calls:
        return _results_as_text([_calls_as_text(each, written) for each in messages], traits)
    if not traits.takes_several_calls:
        messages = list(_one_call_each(messages))
    known = [_as_taken(each, traits) for each in messages]
    return known if traits.takes_results else _results_as_text(known, traits)


def _as_taken(message: dict[str, Any], traits: TemplateTraits) -> dict[str, Any]:
    taken = dict(message)
    if message.get("tool_calls"):
        if not traits.takes_thoughts_beside_content:
            taken.update(_as_thoughts(message))
        taken["tool_calls"] = [_call(each, traits) for each in message["tool_calls"]]
    if "tool_call_id" in message:
        taken["tool_call_id"] = _id(message["tool_call_id"], traits)
    return taken


def _as_thoughts(message: dict[str, Any]) -> dict[str, Any]:
    """What was said before a call, as the end of what was thought, where there is place for one."""
    thoughts, said = message.get("reasoning_content"), message["content"]
    if not thoughts or not said:
        return {}
    return {"reasoning_content": f"{thoughts}\n\n{said}", "content": ""}


def _call(call: Mapping[str, Any], traits: TemplateTraits) -> dict[str, Any]:
    function = dict(call["function"])
    if traits.takes_argument_objects:
        function["arguments"] = _arguments(function["arguments"])
    return {**call, "id": _id(call["id"], traits), "function": function}


def _arguments(text: Any) -> Any:
    try:
        return json.loads(text or "{}")
    except (TypeError, ValueError, RecursionError):
        # No JSON: the model once wrote it so, and reads it so.
        return text


def _id(call_id: str, traits: TemplateTraits) -> str:
    if traits.takes_long_call_ids or len(call_id) == SHORT_ID_LENGTH:
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:SHORT_ID_LENGTH]


def _one_call_each(messages: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Each call in a message of its own, with its result behind it."""
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            yield message
            continue
        results = []
        while at < len(messages) and messages[at]["role"] == "tool":
            results.append(messages[at])
            at += 1
        for number, call in enumerate(calls):
            yield {**message, "content": "" if number else message["content"], "tool_calls": [call]}
            yield from (each for each in results if each["tool_call_id"] == call["id"])
        known_ids = {call["id"] for call in calls}
        yield from (each for each in results if each["tool_call_id"] not in known_ids)


def _calls_as_text(message: dict[str, Any], written: Written) -> dict[str, Any]:
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    if not functions:
        return message
    said = {name: value for name, value in message.items() if name != "tool_calls"}
    calls = written([(each["name"], each["arguments"] or "{}") for each in functions])
    return {**said, "content": "\n".join(filter(None, (message["content"], calls)))}


def _result_as_text(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": tools_as_text.result(message["content"])}


def _results_as_text(
    messages: Sequence[dict[str, Any]], traits: TemplateTraits
) -> list[dict[str, Any]]:
    """Results as what a user says, those of one turn in one message."""
    known: list[dict[str, Any]] = []
    is_result = False
    for message in messages:
        was_result, is_result = is_result, message["role"] == "tool"
        told = _result_as_text(message) if is_result else message
        joins = was_result and (is_result or not traits.takes_users_in_a_row)
        if joins and told["role"] == "user":
            said = f"{known[-1]['content']}\n{told['content']}"
            known[-1] = {**known[-1], "content": said}
        else:
            known.append(told)
    return known
