"""What a client was told, with all that may rightly differ between two equal answers left out.

Where one event ends and the next begins depends on how busy client and gateway are, so the events
of a choice are joined. Ids and times are an answer's own: only that there is one of each is kept.
How much of a prompt was cached tells where it was computed, not what.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

DONE = "[DONE]"


class BrokenAnswerError(Exception):
    """What came is no answer of the API."""


class ErrorAnswerError(Exception):
    """The answer is, or ends in, an error of the API."""


@dataclass
class Choice:
    """All that came for one choice."""

    text: str = ""
    roles: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    finish_reasons: list[str] = field(default_factory=list)
    rest: list[Any] = field(default_factory=list)
    """What comes in parts that are not joined, such as tool calls."""


@dataclass
class Transcript:
    """An answer as a client has it in the end."""

    kind: str
    model: str
    choices: dict[int, Choice] = field(default_factory=dict)
    usage: dict[str, Any] | None = None

    def differences(self, other: Transcript) -> list[str]:
        """Where the other one differs, for people; empty when it is equal."""
        found = [
            f"{name} is {mine!r}, not {theirs!r}"
            for name, mine, theirs in (
                ("kind", other.kind, self.kind),
                ("model", other.model, self.model),
                ("usage", other.usage, self.usage),
                ("choices", sorted(other.choices), sorted(self.choices)),
            )
            if mine != theirs
        ]
        for index in self.choices.keys() & other.choices.keys():
            mine, theirs = other.choices[index], self.choices[index]
            if mine.text != theirs.text:
                found.append(f"choice {index}: {_first_difference(mine.text, theirs.text)}")
            found += [
                f"choice {index}: {name} differ: "
                f"{_first_unequal(getattr(mine, name), getattr(theirs, name))}"
                for name in ("roles", "logprobs", "finish_reasons", "rest")
                if getattr(mine, name) != getattr(theirs, name)
            ]
        return found


def read_stream(body: bytes) -> Transcript:
    """The transcript of a body of server-sent events.

    Raises:
        ErrorAnswerError: an event holds an error.
        BrokenAnswerError: events are no JSON, or of several answers, or the end is missing.
    """
    *events, last = [*_events(body)] or [""]
    if not events and not last:
        raise BrokenAnswerError("there is no event")
    if last != DONE:
        _check_error(json.loads(last))
        raise BrokenAnswerError(f"the stream ends without {DONE}: …{last[-200:]}")
    chunks = [json.loads(event) for event in events]
    for chunk in chunks:
        _check_error(chunk)
    if len({(chunk["id"], chunk["created"]) for chunk in chunks}) != 1:
        raise BrokenAnswerError("the events have several ids")
    transcript = Transcript(chunks[0]["object"], chunks[0]["model"])
    for chunk in chunks:
        _take(transcript, chunk)
    return transcript


def read_whole(body: bytes) -> Transcript:
    """The transcript of one JSON body.

    Raises:
        ErrorAnswerError: it is an error.
        BrokenAnswerError: it is no JSON.
    """
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise BrokenAnswerError(f"no JSON: {body[:200]!r}") from error
    _check_error(answer)
    transcript = Transcript(answer["object"], answer["model"])
    _take(transcript, answer)
    return transcript


def _events(body: bytes) -> Iterator[str]:
    for block in body.decode().split("\n\n"):
        if block.strip():
            if not block.startswith("data: "):
                raise BrokenAnswerError(f"no event: {block[:200]!r}")
            yield block.removeprefix("data: ")


def _check_error(answer: Any) -> None:
    if isinstance(answer, dict) and "error" in answer:
        raise ErrorAnswerError(json.dumps(answer["error"]))


def _take(transcript: Transcript, chunk: dict[str, Any]) -> None:
    usage = chunk.get("usage")
    if usage is not None:
        if transcript.usage is not None:
            raise BrokenAnswerError("usage came twice")
        transcript.usage = {key: usage[key] for key in usage if key != "prompt_tokens_details"}
    for told in chunk["choices"]:
        choice = transcript.choices.setdefault(told["index"], Choice())
        if choice.finish_reasons and told.get("finish_reason"):
            raise BrokenAnswerError(f"choice {told['index']} finished twice")
        message = dict(told.get("delta") or told.get("message") or {"content": told.get("text")})
        role = message.pop("role", None)
        if role:
            choice.roles.append(role)
        choice.text += message.pop("content", None) or ""
        rest = {key: value for key, value in message.items() if value is not None}
        if rest:
            choice.rest.append(rest)
        logprobs = told.get("logprobs")
        if logprobs:
            choice.logprobs += logprobs.get("content") or [logprobs]
        if told.get("finish_reason"):
            choice.finish_reasons.append(told["finish_reason"])


def _first_unequal(got: list[Any], wanted: list[Any]) -> str:
    for at, (mine, theirs) in enumerate(zip(got, wanted, strict=False)):
        if mine != theirs:
            return f"at {at}, {mine!r:.200} instead of {theirs!r:.200}"
    return f"{len(got)} instead of {len(wanted)}"


def _first_difference(got: str, wanted: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b),
        min(len(got), len(wanted)),
    )
    begin = max(0, at - 20)
    return (
        f"text differs at character {at} of {len(wanted)}: "
        f"{got[begin : at + 20]!r} instead of {wanted[begin : at + 20]!r}"
    )
