"""What a chat template can take, found out by rendering small conversations with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Messages = Sequence[Mapping[str, Any]]


class Probe(Protocol):
    """Renders a conversation with one template."""

    def __call__(self, messages: Messages, tools: Sequence[Mapping[str, Any]] = ()) -> str | None:
        """The text, or None where the template refuses it."""
        ...


@dataclass(frozen=True)
class TemplateTraits:
    """What a template can take. By default, everything."""

    takes_strings: bool = True
    """Content as a string. Else as a list of parts."""
    takes_system: bool = True
    knows_developer: bool = True
    takes_tools: bool = True
    takes_calls: bool = True
    call_text: str = ""
    """How it writes a call."""
    takes_argument_objects: bool = True
    """Arguments of calls as objects. Else as JSON texts."""
    takes_several_calls: bool = True
    takes_long_call_ids: bool = True
    """Else ids have nine letters or digits, as Mistral has them."""
    takes_thoughts_beside_content: bool = True
    """In messages that call."""
    takes_results: bool = True
    takes_users_in_a_row: bool = True
    variables: frozenset[str] = frozenset()
    """Of those that switch reasoning, the ones that it looks at."""


SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates turn reasoning on or off."""

SHORT_ID_LENGTH = 9

_WORD = "Needle"
_OTHER_WORD = "Haystack"
_KEY = "needlekey"
_SHORT_ID = "needle123"
_LONG_ID = "call_needle1234567890"
_NO_ARGUMENTS: tuple[dict[str, Any] | str, ...] = ({}, "{}")
_TOOL_ROLE = re.compile(r"""["'](tool|ipython|tool_response)["']""")


def traits_of(source: str, probe: Probe) -> TemplateTraits:
    """The traits of a template.

    Args:
        source: its text, which is asked where a rendering does not tell: most templates write the
            name of any role.
        probe: renders with it.
    """
    takes_strings = _shows(probe([_user(_WORD)]), _WORD)
    if not takes_strings and not _shows(probe([_user([{"type": "text", "text": _WORD}])]), _WORD):
        # It wants something that is not known here: let it say itself what.
        return TemplateTraits(
            knows_developer="developer" in source,
            takes_tools=bool(re.search(r"\btools\b", source)),
            variables=_variables(source),
        )

    def ask(*messages: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] = ()) -> str | None:
        return probe([message_in_form(each, as_string=takes_strings) for each in messages], tools)

    first = _user("Hi")
    call_id, call_text = _calls(ask, first)
    takes_objects = _takes_objects(ask, first, call_id)
    arguments: dict[str, Any] | str = {} if takes_objects else "{}"
    several = ask(
        first,
        _assistant(_call(_WORD, arguments, call_id), _call(_OTHER_WORD, arguments, call_id[::-1])),
    )
    result = ask(
        first,
        _assistant(_call("x", arguments, call_id)),
        {"role": "tool", "tool_call_id": call_id, "name": "x", "content": _WORD},
    )
    tool = {"type": "function", "function": {"name": _WORD, "description": "", "parameters": {}}}
    thoughtful = {**_assistant(_call("x", arguments, call_id)), "reasoning_content": _WORD}
    takes_thoughts = ask(first, {**thoughtful, "content": "x"}) is not None
    return TemplateTraits(
        takes_strings=takes_strings,
        takes_system=_shows(ask({"role": "system", "content": _WORD}, first), _WORD),
        knows_developer="developer" in source,
        takes_tools=_shows(ask(first, tools=[tool]), _WORD),
        takes_calls=call_text is not None,
        call_text=call_text or "",
        takes_argument_objects=takes_objects,
        takes_several_calls=_shows(several, _WORD) and _shows(several, _OTHER_WORD),
        takes_long_call_ids=call_id == _LONG_ID,
        takes_thoughts_beside_content=takes_thoughts or ask(first, thoughtful) is None,
        takes_results=bool(_TOOL_ROLE.search(source)) and _shows(result, _WORD),
        takes_users_in_a_row=_shows(ask(first, _user(_WORD)), _WORD),
        variables=_variables(source),
    )


def message_in_form(message: Mapping[str, Any], *, as_string: bool) -> Mapping[str, Any]:
    """A message whose content is a string, in the form that a template takes."""
    content = message.get("content")
    if as_string or not isinstance(content, str):
        return message
    return {**message, "content": [{"type": "text", "text": content}]}


def _calls(ask: Any, first: Mapping[str, Any]) -> tuple[str, str | None]:
    """An id with which the template takes calls, and what it makes of one."""
    for call_id in (_LONG_ID, _SHORT_ID):
        for arguments in _NO_ARGUMENTS:
            text = ask(first, _assistant(_call(_WORD, arguments, call_id)))
            if _shows(text, _WORD):
                return call_id, text
    return _LONG_ID, None


def _takes_objects(ask: Any, first: Mapping[str, Any], call_id: str) -> bool:
    """Whether arguments are best given as an object: what Python prints of one is no JSON."""
    as_object = ask(first, _assistant(_call(_WORD, {_KEY: "x"}, call_id)))
    if as_object is None or f"'{_KEY}'" in as_object:
        return False
    as_text = ask(first, _assistant(_call(_WORD, f'{{"{_KEY}": "x"}}', call_id)))
    return _KEY in as_object or not _shows(as_text, _KEY)


def _variables(source: str) -> frozenset[str]:
    return frozenset(
        each for each in SWITCHES if re.search(rf"(?<![.\w'\"]){each}(?![\w'\"])", source)
    )


def _shows(text: str | None, word: str) -> bool:
    return text is not None and word in text


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(*calls: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def _call(name: str, arguments: Any, call_id: str) -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
