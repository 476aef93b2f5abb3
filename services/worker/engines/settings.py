"""What can be set on an engine that loads a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.mesh.errors import StartError

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "npu")
DTYPES = ("auto", "float32", "float16", "bfloat16")

_POSITIVE = (
    "max_running",
    "max_waiting",
    "context_length_tokens",
    "kv_memory_bytes",
    "step_tokens",
    "threads",
)


@dataclass(frozen=True)
class EngineSettings:
    """How one checkpoint is loaded and how much it may take on.

    Raises:
        StartError: a value is out of range; the message names the setting.
    """

    model_path: str
    """A folder with a checkpoint, or a Hugging Face hub id."""

    model_names: tuple[str, ...] = ()
    """The name that clients ask for, then aliases. Default: the folder's name or the hub id."""

    revision: str | None = None
    """Branch, tag or commit of a hub id. Default: its main branch. Not for folders."""

    device: str = "auto"
    """One of DEVICES, with an index where there are several ("cuda:1"). "auto" takes an
    accelerator where there is one, else the CPU."""

    dtype: str = "auto"
    """One of DTYPES: the type of the weights. "auto" is float32 on a CPU, bfloat16 on XPU, float16
    or, where the checkpoint is bfloat16, bfloat16 on other accelerators. 16-bit types halve the
    memory; on CPUs without native support for them they are slower than float32."""

    max_running: int = 32
    """Sequences computed at once. More raise throughput and each one's time per token, and need
    more KV memory; 32 is where a CPU's throughput levels off."""

    max_waiting: int = 256
    """Sequences that wait for a place. More are refused at once, so that clients try elsewhere
    instead of waiting for minutes."""

    context_length_tokens: int | None = None
    """Prompt and completion tokens of one sequence. Default: what the model was made for, or less
    where the KV memory would hold too few such sequences (the log says so). Shorter contexts
    leave room for more sequences."""

    kv_memory_bytes: int | None = None
    """Memory for the KV cache, taken once at the start. Default: 40 % of the free memory of a CPU,
    85 % of an accelerator's after the weights; never more than max_running contexts need."""

    step_tokens: int = 512
    """Prompt tokens computed in one step beside the running sequences. More get through long
    prompts sooner; fewer keep the time between the tokens of running sequences even."""

    threads: int | None = None
    """CPU threads that compute. Default: all cores, or what a container may use of them. Fewer
    leave room for others on the machine; for models of a few million parameters 1 is as fast."""

    chat_template_path: Path | None = None
    """A file with a Jinja chat template that replaces the checkpoint's own."""

    def __post_init__(self) -> None:
        if not self.model_path:
            raise StartError("model_path is empty: give a folder or a Hugging Face hub id")
        if self.device.partition(":")[0] not in DEVICES:
            raise StartError(f"unknown device {self.device!r}: choose from {', '.join(DEVICES)}")
        if self.dtype not in DTYPES:
            raise StartError(f"unknown dtype {self.dtype!r}: choose from {', '.join(DTYPES)}")
        if any(not name for name in self.model_names):
            raise StartError("model_names holds an empty name")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise StartError(f"{name} is {value}: it must be 1 or more")
