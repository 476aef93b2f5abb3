"""Python's literals, read as they come and said as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from services.worker.chat_formats.calling import BrokenCallError, CallingParser
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.schemas import is_json

_WORD = re.compile(r"[\w.+-]*")
_CLOSINGS: Mapping[str, str] = {"[": "]", "(": ")", "{": "}"}
_WORDS: Mapping[str, str] = {"True": "true", "False": "false", "None": "null"}
_ESCAPES: Mapping[str, str] = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "a": "\a",
    "v": "\v",
    "0": "\0",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "/": "/",
    "\n": "",
}
_CODES: Mapping[str, int] = {"x": 2, "u": 4, "U": 8}
_PLAIN = re.compile(r"[^\\'\"]*")


class PythonValueParser(CallingParser):
    """Reads values of Python. Lists may be nested as deep as they like."""

    def _read_python_value(self, say: Callable[[str], None]) -> Steps[None]:
        """Reads one value.

        Raises:
            BrokenCallError: it is none.
        """
        open_brackets: list[str] = []
        needs_comma = False
        while True:
            first = yield from self._past_space()
            if open_brackets and first == _CLOSINGS[open_brackets[-1]]:
                self._at += 1
                say("}" if open_brackets.pop() == "{" else "]")
                needs_comma = True
            elif open_brackets and first == ",":
                self._at += 1
                continue
            elif open_brackets and first == ":":
                self._at += 1
                say(": ")
                needs_comma = False
                continue
            else:
                if needs_comma:
                    say(", ")
                needs_comma = first not in _CLOSINGS
                if first in _CLOSINGS:
                    self._at += 1
                    open_brackets.append(first)
                    say("{" if first == "{" else "[")
                elif first in "'\"":
                    yield from self._read_python_string(first, say)
                else:
                    say((yield from self._read_python_word()))
            if not open_brackets:
                return

    def _read_python_word(self) -> Steps[str]:
        word = yield from self._matched(_WORD)
        word = _WORDS.get(word, word)
        if not is_json(word):
            raise BrokenCallError
        return word

    def _read_python_string(self, quote: str, say: Callable[[str], None]) -> Steps[None]:
        self._at += 1
        say('"')
        while True:
            found = _PLAIN.match(self._text, self._at)
            assert found is not None
            text = found.group()
            self._at = found.end()
            if self._at < len(self._text):
                special = self._text[self._at]
                if special == "\\":
                    if text:
                        say(_inner(text))
                    text = yield from self._read_escape()
                elif special == quote:
                    self._at += 1
                    say(_inner(text) + '"')
                    return
                else:
                    self._at += 1
                    text += special
                say(_inner(text))
                continue
            say(_inner(text))
            yield from self._more()

    def _read_escape(self) -> Steps[str]:
        while len(self._text) < self._at + 2:
            yield from self._more()
        letter = self._text[self._at + 1]
        digits = _CODES.get(letter, 0)
        while len(self._text) < self._at + 2 + digits:
            yield from self._more()
        code = self._text[self._at + 2 : self._at + 2 + digits]
        self._at += 2 + digits
        if not digits:
            return _ESCAPES.get(letter, "\\" + letter)
        try:
            character = chr(int(code, 16))
        except (ValueError, OverflowError):
            return f"\\{letter}{code}"
        # Half of a surrogate pair, which no UTF-8 has.
        return "\N{REPLACEMENT CHARACTER}" if "\ud800" <= character <= "\udfff" else character


def _inner(text: str) -> str:
    """A text as it stands between the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
