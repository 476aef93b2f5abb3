"""What can be set on an engine that loads a checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from services.mesh.errors import StartError
from services.worker.chat_formats.names import AUTO, check_name

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "npu")
DTYPES = ("auto", "float32", "float16", "bfloat16")
DEFAULT_COMPILER = "services.worker.engines.guidance.compiler:make_compiler"
QUANTIZATIONS = ("none", "int8", "8bit", "4bit")

_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/.-]+")
_POSITIVE = (
    "max_running",
    "max_waiting",
    "context_length_tokens",
    "kv_memory_bytes",
    "step_tokens",
    "threads",
    "num_gpus",
    "max_gpu_memory_bytes",
    "max_cpu_memory_bytes",
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
    """One of DTYPES: the type of the weights. "auto" is bfloat16 on a CPU that computes in it
    natively, else float32; on an accelerator, the checkpoint's 16-bit type, and for float32
    checkpoints bfloat16 where the device has it (it keeps float32's range), else float16. 16-bit
    types halve the memory and the time of what memory bounds; float32 is exact."""

    quantization: str | None = None
    """One of QUANTIZATIONS, or None as "none": how weights are shrunk while they are loaded.
    "8bit" and "4bit" (NF4) are those of bitsandbytes: a half and a quarter of 16-bit weights, less
    exact and mostly slower. Not for checkpoints that are quantized already."""

    gpus: tuple[str, ...] = ()
    """Accelerators that this process may see, as the driver numbers them, or by their GPU-… or
    MIG-… names. Within the process they are counted from 0. Default: all."""

    num_gpus: int | None = None
    """Accelerators that hold weights: they fill one after the other. Default: as many as `gpus`
    names, else 1. More of them hold larger models, and do not make smaller ones faster."""

    max_gpu_memory_bytes: int | None = None
    """What the weights may take of each accelerator. Default: all that is free of a single one,
    85 % of what is free where other memory can take the rest. Less leaves more for the KV cache."""

    cpu_offload: bool = False
    """Whether weights that no accelerator has room for stay in host memory. They are copied over
    in every step, which is slow, but runs."""

    max_cpu_memory_bytes: int | None = None
    """What the weights may take of host memory. Default: all that is free, 85 % of it where other
    memory can take the rest."""

    offload_folder: Path | None = None
    """A folder of a fast disk. Weights that fit nowhere else are read from there, or from the
    checkpoint itself, in every step: very slow, but runs. Default: none."""

    allow_pickle: bool = False
    """Whether weights that exist only as pickles (pytorch_model.bin) are read. Off by default:
    a pickle can run code when it is read."""

    trust_remote_code: bool = False
    """Whether Python code that a checkpoint brings is run. Off by default: it can do whatever the
    worker may."""

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
    gpu_memory_utilization of an accelerator's after the weights; never more than max_running
    contexts need."""

    gpu_memory_utilization: float = 0.85
    """The part of an accelerator's memory, of what the weights leave free, that the KV cache takes
    where kv_memory_bytes does not say. The rest is for what a step computes: more lets more
    sequences run, and large steps run out of memory sooner."""

    cuda_graphs: bool = True
    """Whether a CUDA device replays recorded decoding steps. It saves launching hundreds of small
    operations in every step, and costs seconds when a number of sequences first runs, and memory.
    Without it each operation is launched anew, which is easier to debug."""

    step_tokens: int = 512
    """Prompt tokens computed in one step beside the running sequences. More get through long
    prompts sooner; fewer keep the time between the tokens of running sequences even."""

    threads: int | None = None
    """CPU threads that compute. Default: all cores, or what a container may use of them. Fewer
    leave room for others on the machine; for models of a few million parameters 1 is as fast."""

    constraint_compiler: str | None = DEFAULT_COMPILER
    """What makes outputs take a form, such as that of a JSON schema, as "module:function": see
    services.worker.engines.constraints.load_compiler. None: requests that ask for a form are
    refused."""

    chat_template_path: Path | None = None
    """A file with a Jinja chat template that replaces the checkpoint's own."""

    chat_format: str = AUTO
    """How the model writes reasoning and tool calls: a name of services.worker.chat_formats.names,
    or "auto", which tells it from the chat template and the vocabulary. A wrong one leaves calls in
    the text, or tells the model of tools in a way that it does not know."""

    def __post_init__(self) -> None:
        if not self.model_path:
            raise StartError("model_path is empty: give a folder or a Hugging Face hub id")
        check_name(self.chat_format)
        if self.device.partition(":")[0] not in DEVICES:
            raise StartError(f"unknown device {self.device!r}: choose from {', '.join(DEVICES)}")
        if self.dtype not in DTYPES:
            raise StartError(f"unknown dtype {self.dtype!r}: choose from {', '.join(DTYPES)}")
        if self.quantization not in (None, *QUANTIZATIONS):
            raise StartError(
                f"unknown quantization {self.quantization!r}: choose from "
                f"{', '.join(QUANTIZATIONS)}"
            )
        for gpu in self.gpus:
            if not _GPU.fullmatch(gpu):
                raise StartError(f"--gpus holds {gpu!r}: write numbers such as 0,1, or GPU-… names")
        if len(set(self.gpus)) < len(self.gpus):
            raise StartError("--gpus names one of them twice")
        if self.num_gpus is not None and 0 < len(self.gpus) < self.num_gpus:
            raise StartError(
                f"num_gpus is {self.num_gpus}, and --gpus names {len(self.gpus)}: it must name as "
                "many"
            )
        if not 0 < self.gpu_memory_utilization <= 1:
            raise StartError(
                f"gpu_memory_utilization is {self.gpu_memory_utilization:g}: it must be over 0 and "
                "at most 1"
            )
        if any(not name for name in self.model_names):
            raise StartError("model_names holds an empty name")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise StartError(f"{name} is {value}: it must be 1 or more")
