"""Llama 3.1 to 3.3: the whole answer is {"name": …, "parameters": …}, or several such."""

from __future__ import annotations

from dataclasses import dataclass

from services.worker.chat_formats.base import ToolUse
from services.worker.chat_formats.call_list import json_call_form
from services.worker.chat_formats.calling import NoCallError
from services.worker.chat_formats.family import SegmentFamily, several
from services.worker.chat_formats.incremental import Steps
from services.worker.chat_formats.json_calls import JsonCallParser
from services.worker.engines.forms import Form, Literal, OneOf, Regex

PYTHON_TAG = "<|python_tag|>"
_NO_CALL = Regex(r"([^{\s][\s\S]*)?")


class _Parser(JsonCallParser):
    may_have_other_keys = False
    may_start_with_call = True

    def _read_calls(self, marker: str) -> Steps[None]:
        # What follows the tag and is no call is code, which is shown without it.
        if marker:
            self._begin_call()
        is_first = True
        while (character := (yield from self._past_space())) == "{" or not is_first:
            if character == "{":
                if not is_first:
                    self._begin_call()
                yield from self._read_json_call()
                is_first = False
            elif character == ";":
                self._at += 1
            else:
                return
        raise NoCallError


@dataclass(frozen=True)
class Llama3(SegmentFamily):
    """Nothing marks a call but where it stands: at the output's start, or behind a tag.

    So an answer in JSON whose first key is the name of a tool is a call.
    """

    call_markers = (PYTHON_TAG,)
    call_openings = (PYTHON_TAG,)
    segment_parser = _Parser

    def calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        call = OneOf(
            tuple(json_call_form(tool, tool_use, arguments="parameters") for tool in tool_use.tools)
        )
        return several(call, tool_use, separator=Literal("; "))

    def text_or_calls_form(self, tool_use: ToolUse) -> Form:
        """See Family."""
        return OneOf((self.calls_form(tool_use), _NO_CALL))
