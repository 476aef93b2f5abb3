"""Reads calls that are JSON objects: {"name": …, "arguments": {…}}, and near relatives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from services.worker.chat_formats.calling import BrokenCallError, NoCallError
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.json_extent import JsonExtent
from services.worker.chat_formats.segments import SegmentParser

_NAMES = frozenset({"name", "function"})
_WORD = re.compile(r"[\w.+-]*")
_OTHERS = frozenset({"type", "id"})
_ARGUMENTS = frozenset({"arguments", "parameters"})
NO_ARGUMENTS = "{}"


@dataclass
class CallSoFar:
    """What has been read of a call."""

    is_started: bool = False
    has_arguments: bool = False
    has_said: bool = False
    held: str = ""
    """Arguments that came before the name."""
    depth: int = 0

    def fail(self) -> NoReturn:
        """It is no JSON, or none of a call."""
        if self.is_started:
            raise BrokenCallError
        raise NoCallError


class JsonCallParser(SegmentParser):
    """Reads calls in JSON. Arguments are said as they come, where the name stands before them.

    Arguments may be a JSON text in a string, and the name and the arguments may be one object
    deeper, under "function". Without arguments, or with null, they are an empty object.
    """

    may_have_other_keys = True
    """Whether an object is a call whatever else it holds before the name."""

    def _read_json_calls(self) -> Steps[None]:
        """Reads one call, or an array of calls."""
        first = yield from self._past_space()
        if first == "{":
            yield from self._read_json_call()
            return
        if first != "[":
            raise NoCallError
        self._at += 1
        has_calls = False
        while (character := (yield from self._past_space())) != "]":
            if character == "," and has_calls:
                self._at += 1
            elif character == "{":
                if has_calls:
                    self._begin_call()
                yield from self._read_json_call()
                has_calls = True
            elif has_calls:
                raise BrokenCallError
            else:
                raise NoCallError
        if not has_calls:
            raise NoCallError
        self._at += 1

    def _read_json_call(self) -> Steps[None]:
        """Reads one call, from its brace on."""
        call = CallSoFar()
        yield from self._read_members(call)
        if not call.is_started:
            raise NoCallError
        self._end_call(call)

    def _end_call(self, call: CallSoFar) -> None:
        if not call.has_said:
            self._say_arguments(NO_ARGUMENTS)

    def _read_members(self, call: CallSoFar) -> Steps[None]:
        self._at += 1
        while (character := (yield from self._past_space())) != "}":
            if character == ",":
                self._at += 1
                continue
            if character != '"':
                call.fail()
            key = yield from self._read_string(call)
            if (yield from self._past_space()) != ":":
                call.fail()
            self._at += 1
            yield from self._read_member(call, key, (yield from self._past_space()))
        self._at += 1

    def _read_member(self, call: CallSoFar, key: str, first: str) -> Steps[None]:
        if key in _NAMES and first == '"' and not call.is_started:
            self._start_call((yield from self._read_string(call)))
            call.is_started = True
            if call.held:
                call.has_said = True
                self._say_arguments(call.held)
        elif key == "function" and first == "{" and not call.is_started and not call.depth:
            call.depth += 1
            yield from self._read_members(call)
        elif key in _ARGUMENTS and not call.has_arguments:
            call.has_arguments = True
            yield from self._read_arguments(call, first)
        elif not (self.may_have_other_keys or call.is_started or key in _OTHERS):
            raise NoCallError
        else:
            yield from self._read_value(call, first, lambda _: None)

    def _read_arguments(self, call: CallSoFar, first: str) -> Steps[None]:
        def say(text: str) -> None:
            if call.is_started:
                call.has_said = True
                self._say_arguments(text)
            else:
                call.held += text

        if first == '"':
            text = yield from self._read_string(call)
            if text:
                say(text)
        elif first in "{[":
            yield from self._read_value(call, first, say)
        else:
            words: list[str] = []
            yield from self._read_value(call, first, words.append)
            if words != ["null"]:
                say("".join(words))

    def _read_value(self, call: CallSoFar, first: str, say: Callable[[str], None]) -> Steps[None]:
        """Reads any value. Pieces of it are said as they come, a number or a word at its end."""
        if first in '{["':
            yield from self._read_extent(call, say)
            return
        word = yield from self._matched(_WORD)
        if not word:
            call.fail()
        say(word)

    def _read_extent(self, call: CallSoFar, say: Callable[[str], None]) -> Steps[None]:
        extent = JsonExtent()
        while True:
            begin = self._at
            self._at = extent.take(self._text, begin)
            if self._at > begin:
                say(self._text[begin : self._at])
            if extent.is_done:
                return
            if extent.is_broken:
                call.fail()
            yield from self._more()

    def _read_string(self, call: CallSoFar) -> Steps[str]:
        pieces: list[str] = []
        yield from self._read_extent(call, pieces.append)
        try:
            text: str = json.loads("".join(pieces), strict=False)
        except ValueError:
            call.fail()
        # An escape may name half of a surrogate pair, which no UTF-8 has.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
