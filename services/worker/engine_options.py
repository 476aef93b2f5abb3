"""Options of a worker's command line that say what is loaded, how, and onto what."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from services.worker.chat_formats.names import NAMES

ModelOption = partial(typer.Option, rich_help_panel="Model and engine")
EncoderOption = partial(typer.Option, rich_help_panel="The encoder engine")
DeviceOption = partial(typer.Option, rich_help_panel="Devices and weights")
MemoryOption = partial(typer.Option, rich_help_panel="Memory")

ModelPath = Annotated[
    str | None,
    ModelOption(
        "--model-path",
        "--model",
        help="A folder with a checkpoint, or a Hugging Face hub id. The scripted engine needs "
        "none.",
    ),
]
ModelNames = Annotated[
    str,
    ModelOption(
        help="Names that clients may ask for, split by commas: the first is the model's name, the "
        "others are aliases. By default the folder's name or the hub id.",
    ),
]
Revision = Annotated[
    str | None,
    ModelOption(help="Branch, tag or commit of a hub id. Its main branch by default."),
]
ChatTemplate = Annotated[
    Path | None,
    ModelOption(help="File with a Jinja chat template, in place of the checkpoint's own."),
]
ChatFormat = Annotated[
    str,
    ModelOption(
        help="How the model writes reasoning and tool calls: "
        + ", ".join(NAMES)
        + "; auto tells it from the chat template. docs/models.md says which models write which.",
    ),
]
TrustRequestChatTemplate = Annotated[
    bool,
    ModelOption(
        "--trust-request-chat-template",
        help="Let requests bring their own chat template, which is code, run in a sandbox.",
    ),
]
AllowPickle = Annotated[
    bool,
    ModelOption(
        "--allow-pickle",
        help="Read weights that exist only as pickles (pytorch_model.bin). A pickle can run code "
        "when it is read: only for checkpoints you trust.",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    ModelOption(
        "--trust-remote-code",
        help="Run Python code that the checkpoint brings. It can do whatever the worker may: only "
        "for checkpoints you have read.",
    ),
]

Device = Annotated[
    str,
    DeviceOption(
        help="auto, cpu, cuda, cuda:1, mps, xpu or npu. auto takes an accelerator if there is one.",
    ),
]
Dtype = Annotated[
    str,
    DeviceOption(
        help="Type of the weights: auto, float32, float16 or bfloat16. auto is bfloat16 on CPUs "
        "that compute in it natively, else float32; on accelerators the checkpoint's 16-bit type. "
        "16 bits halve the memory; float32 is exact.",
    ),
]
Quantization = Annotated[
    str | None,
    DeviceOption(
        metavar="none|int8|8bit|4bit",
        help="Shrink the weights while they are loaded; 8bit and 4bit as the two options below.",
    ),
]
Load8bit = Annotated[
    bool,
    DeviceOption(
        "--load-8bit",
        help="Weights in 8 bits (bitsandbytes): half the memory of 16 bits, a little less exact. "
        "On CPU and CUDA.",
    ),
]
Load4bit = Annotated[
    bool,
    DeviceOption(
        "--load-4bit",
        help="Weights in 4 bits (bitsandbytes NF4): a quarter of the memory of 16 bits, less "
        "exact. On CPU and CUDA.",
    ),
]
Gpus = Annotated[
    str,
    DeviceOption(
        metavar="0,1",
        help="Accelerators that the worker may see, as the driver numbers them. All by default.",
    ),
]
NumGpus = Annotated[
    int | None,
    DeviceOption(
        help="Accelerators that hold the weights; one fills after the other. As many as --gpus "
        "names, else 1. More hold larger models, and make smaller ones no faster.",
    ),
]
NoCudaGraphs = Annotated[
    bool,
    DeviceOption(
        "--no-cuda-graphs",
        "--enforce-eager",
        help="Launch each operation of a decoding step anew, in place of replaying recorded CUDA "
        "graphs. Slower, for finding faults.",
    ),
]
Threads = Annotated[
    int | None, DeviceOption(help="CPU threads that compute. All cores by default.")
]

MaxGpuMemory = Annotated[
    str | None,
    MemoryOption(
        metavar="SIZE",
        help="What weights may take of each accelerator, such as 20GiB. By default all that is "
        "free of a single one, 85 % where other memory can take the rest. Less leaves more for "
        "the KV cache.",
    ),
]
CpuOffload = Annotated[
    bool,
    MemoryOption(
        "--cpu-offload",
        "--cpu-offloading",
        help="Keep weights that no accelerator has room for in host memory. Slow: they are copied "
        "over in every step.",
    ),
]
MaxCpuMemory = Annotated[
    str | None,
    MemoryOption(
        metavar="SIZE",
        help="What weights may take of host memory. By default all that is free, 85 % where an "
        "--offload-folder can take the rest.",
    ),
]
OffloadFolder = Annotated[
    Path | None,
    MemoryOption(
        metavar="FOLDER",
        help="Read weights that fit nowhere else from this folder's disk, or from the checkpoint "
        "itself, in every step. Very slow.",
    ),
]
KvCacheMemory = Annotated[
    str | None,
    MemoryOption(
        metavar="SIZE",
        help="Memory for the KV cache, such as 4GiB: more holds more and longer sequences. By "
        "default 40 % of what is free on a CPU, --gpu-memory-utilization on an accelerator; never "
        "more than --max-running whole contexts need.",
    ),
]
GpuMemoryUtilization = Annotated[
    float,
    MemoryOption(
        metavar="SHARE",
        help="The part of an accelerator's memory, of what the weights leave free, that the KV "
        "cache takes. More holds more sequences; the rest is for what a step computes.",
    ),
]

Pooling = Annotated[
    str,
    EncoderOption(
        metavar="auto|mean|cls|last|max",
        help="How the vectors of a text's tokens become one. auto is as the checkpoint says, else "
        "the mean, or the last where a model sees backwards only.",
    ),
]
BatchTokens = Annotated[
    int | None,
    EncoderOption(
        help="Tokens of one forward pass, padding included. More uses an accelerator better; fewer "
        "let what comes meanwhile begin sooner. By default 1024 on a CPU, 16384 elsewhere.",
    ),
]
EmbedInTruncate = Annotated[
    bool,
    EncoderOption(
        "--embed-in-truncate",
        help="Cut texts that are longer than the model reads, where a request does not say; "
        "otherwise they are refused.",
    ),
]
