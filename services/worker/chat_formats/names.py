"""The chat formats by name."""

from __future__ import annotations

from services.mesh.errors import StartError
from services.worker.chat_formats.base import ChatFormat
from services.worker.chat_formats.call_list import CallList, ClosedCallList
from services.worker.chat_formats.deepseek import DeepSeek
from services.worker.chat_formats.generic import Generic
from services.worker.chat_formats.harmony import Harmony
from services.worker.chat_formats.hermes import Hermes
from services.worker.chat_formats.llama3 import Llama3
from services.worker.chat_formats.mistral import THINK as MISTRAL_THINK
from services.worker.chat_formats.mistral import Mistral
from services.worker.chat_formats.plain import Plain
from services.worker.chat_formats.pythonic import Pythonic
from services.worker.chat_formats.qwen3_coder import Qwen3Coder
from services.worker.chat_formats.reasoning import THINK

_ALL: tuple[ChatFormat, ...] = (
    Hermes("hermes"),
    Hermes("qwen3", THINK),
    Qwen3Coder("qwen3-coder"),
    Qwen3Coder("qwen3.5", THINK),
    Llama3("llama3"),
    Pythonic("pythonic"),
    Mistral("mistral"),
    Mistral("mistral-v11", has_arguments_marker=True),
    Mistral("magistral", MISTRAL_THINK, has_arguments_marker=True),
    DeepSeek("deepseek-v3", has_fence=True),
    DeepSeek("deepseek-r1", THINK, has_fence=True),
    DeepSeek("deepseek-v3.1", THINK),
    Harmony("gpt-oss"),
    CallList("granite"),
    ClosedCallList("phi4"),
    Generic("generic"),
    Generic("think", THINK),
    Plain(),
)
_FORMATS = {each.name: each for each in _ALL}
NAMES = tuple(_FORMATS)
AUTO = "auto"
"""In place of a name: as the chat template tells."""


def check_name(name: str) -> None:
    """Checks a name that may be AUTO.

    Raises:
        StartError: as `by_name`.
    """
    if name != AUTO:
        by_name(name)


def by_name(name: str) -> ChatFormat:
    """A format.

    Raises:
        StartError: there is none of this name.
    """
    if name not in _FORMATS:
        raise StartError(f"unknown chat format {name!r}: choose from {', '.join((AUTO, *NAMES))}")
    return _FORMATS[name]
