"""What can be set on the scripted engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.mesh.errors import StartError
from services.worker.chat_formats.base import ChatFormat
from services.worker.engines.scripted.pace import Pace

DEFAULT_MODEL_NAME = "scripted"
# As much as all contexts of the defaults below, so it never makes a request wait.
DEFAULT_KV_TOKENS = 256 * 32_768


@dataclass(frozen=True)
class ScriptedSettings:
    """How the scripted engine behaves.

    Raises:
        StartError: a value is out of range; the message names its option.
    """

    model_names: tuple[str, ...] = (DEFAULT_MODEL_NAME,)
    """The name that clients ask for, then aliases."""

    pace: Pace = field(default_factory=Pace)

    max_running: int = 256
    """Sequences computed at once. It costs no memory to speak of, so the default lets a load test
    of the mesh meet no queue."""

    max_waiting: int = 1024
    """Requests that wait for a place. More are refused."""

    context_length_tokens: int = 32_768
    """Prompt and completion tokens of one sequence."""

    kv_total_tokens: int = DEFAULT_KV_TOKENS
    """Tokens of all running sequences together. Lower it to see requests wait for memory."""

    repeats: bool = False
    """Whether it says its last message, or its text prompt, in place of the script: so that who
    asks decides what a model would have written."""

    chat_format: ChatFormat | None = None
    """How reasoning and tool calls are written in what it says. None: it is not parsed."""

    def __post_init__(self) -> None:
        if not self.model_names or not all(self.model_names):
            raise StartError("--model-names holds an empty name")
        at_least_one = {
            "--limit-worker-concurrency": self.max_running,
            "--context-length": self.context_length_tokens,
            "--scripted-kv-tokens": self.kv_total_tokens,
        }
        for option, number in at_least_one.items():
            if number < 1:
                raise StartError(f"{option} is {number}; it must be 1 or more")
        not_negative = {
            "--max-waiting": self.max_waiting,
            "--scripted-prefill-ms": self.pace.prefill_s,
            "--scripted-prefill-token-ms": self.pace.prefill_token_s,
            "--scripted-token-interval-ms": self.pace.token_interval_s,
            "--scripted-answer-tokens": self.pace.answer_tokens,
        }
        for option, value in not_negative.items():
            if not value >= 0:
                raise StartError(f"{option} is {value:g}; it must be 0 or more")
