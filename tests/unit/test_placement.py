"""Where weights go: a decision over free memory and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.placement import (
    FreeMemory,
    Placement,
    memory_table,
    place_weights,
)
from services.worker.engines.visible_devices import visible_device_variables

GIB = 1024**3
DISK = Path("fast-disk")


def place(
    chosen: str, weights_gib: float | None, accelerators_gib: tuple[float, ...], **flags: Any
) -> Placement:
    kind = chosen.partition(":")[0]
    names = {f"{kind}:{index}": int(gib * GIB) for index, gib in enumerate(accelerators_gib)}
    weight_bytes = None if weights_gib is None else int(weights_gib * GIB)
    settings = EngineSettings("m", **({"device": kind} | flags))
    return place_weights(chosen, weight_bytes, FreeMemory(names, host=100 * GIB), settings)


def limits_gib(placement: Placement) -> dict[str, float]:
    return {name: round(limit / GIB, 2) for name, limit in placement.limits.items()}


@pytest.mark.parametrize(
    ("device", "weights_gib", "accelerators_gib", "flags", "at", "limits"),
    [
        # One device takes all that it has room for.
        ("cpu", 99, (), {}, "cpu", {}),
        ("cpu", None, (), {}, "cpu", {}),
        ("cuda:0", 79, (80,), {}, "cuda:0", {}),
        ("cuda:1", 70, (10, 80), {"device": "cuda:1"}, "cuda:1", {}),
        ("cuda:0", 19, (80,), {"max_gpu_memory_bytes": 20 * GIB}, "cuda:0", {}),
        ("cuda:0", None, (80,), {}, "cuda:0", {}),
        # Several fill one after the other to 85 %, or to what is said, and no further than needed.
        ("cuda:0", 60, (80, 40), {"num_gpus": 2}, "cuda:0", {}),
        ("cuda:0", 90, (80, 40), {"num_gpus": 2}, "cuda:0", {"cuda:0": 68, "cuda:1": 34}),
        ("xpu:0", 50, (30, 30, 30), {"gpus": ("4", "2")}, "xpu:0", {"xpu:0": 25.5, "xpu:1": 25.5}),
        (
            "cuda:0",
            30,
            (80, 10),
            {"num_gpus": 2, "max_gpu_memory_bytes": 22 * GIB},
            "cuda:0",
            {"cuda:0": 22, "cuda:1": 10},
        ),
        # What is left goes to host memory, then to the disk, where that is allowed.
        ("cuda:0", 100, (80,), {"cpu_offload": True}, "cuda:0", {"cuda:0": 68, "cpu": 85}),
        (
            "cuda:0",
            200,
            (80,),
            {"cpu_offload": True, "max_cpu_memory_bytes": 10 * GIB, "offload_folder": DISK},
            "cuda:0",
            {"cuda:0": 68, "cpu": 10},
        ),
        ("cuda:0", 100, (80,), {"offload_folder": DISK}, "cuda:0", {"cuda:0": 68}),
        ("cpu", 90, (), {"offload_folder": DISK}, "cpu", {"cpu": 85}),
        ("cpu", 80, (), {"offload_folder": DISK}, "cpu", {}),
        (
            "cpu",
            8,
            (),
            {"offload_folder": DISK, "max_cpu_memory_bytes": 4 * GIB},
            "cpu",
            {"cpu": 4},
        ),
    ],
)
def test_where_weights_go(
    device: str,
    weights_gib: float | None,
    accelerators_gib: tuple[float, ...],
    flags: dict[str, Any],
    at: str,
    limits: dict[str, float],
) -> None:
    placement = place(device, weights_gib, accelerators_gib, **flags)
    assert placement.device == at
    assert limits_gib(placement) == limits
    assert list(placement.limits) == list(limits)
    assert placement.offload_folder == (flags.get("offload_folder") if limits else None)


@pytest.mark.parametrize(
    ("device", "weights_gib", "accelerators_gib", "flags", "says"),
    [
        ("cpu", 101, (), {}, r"take 101.0 GiB, and may take cpu 100.0 GiB: try --load-8bit"),
        ("cpu", 9, (), {"max_cpu_memory_bytes": 8 * GIB}, r"cpu 8.0 GiB.*--offload-folder"),
        ("cuda:0", 81, (80,), {}, r"cuda:0 80.0 GiB: try --cpu-offload, --load-8bit"),
        ("cuda:0", 81, (80, 80), {}, r"try --num-gpus, --cpu-offload"),
        ("cuda:0", 81, (80,), {"quantization": "4bit"}, r"try --cpu-offload, --offload-folder"),
        ("cuda:0", 140, (80, 80), {"num_gpus": 2}, r"cuda:0 68.0 GiB, cuda:1 68.0 GiB"),
        ("cuda:0", 154, (80,), {"cpu_offload": True}, r"cpu 85.0 GiB: try --load-8bit"),
        ("cuda:0", 1, (80,), {"num_gpus": 2}, r"--num-gpus asks for 2 cuda devices.*there is 1"),
        ("cuda:0", 1, (8, 8), {"gpus": ("0", "1", "2")}, r"--gpus asks for 3 .*there are 2"),
        ("cuda:1", 1, (8, 8), {"num_gpus": 2, "device": "cuda:1"}, r"--device is cuda:1, one"),
        ("cpu", 1, (), {"num_gpus": 1}, r"--num-gpus is for accelerators, and the device is cpu"),
        ("cpu", 1, (), {"cpu_offload": True}, r"--cpu-offload is for accelerators"),
        ("cpu", 1, (), {"max_gpu_memory_bytes": 1}, r"--max-gpu-memory is for accelerators"),
    ],
)
def test_what_cannot_be_placed(
    device: str,
    weights_gib: float,
    accelerators_gib: tuple[float, ...],
    flags: dict[str, Any],
    says: str,
) -> None:
    with pytest.raises(StartError, match=says):
        place(device, weights_gib, accelerators_gib, **flags)


def test_the_table_has_a_row_for_each_device() -> None:
    free = FreeMemory({"cuda:0": 80 * GIB, "cuda:1": 40 * GIB}, host=100 * GIB)
    placement = Placement("cuda:0", {"cuda:0": 68 * GIB, "cpu": 85 * GIB}, DISK)
    table = memory_table(free, placement, {"cuda:0": 60 * GIB, "disk": GIB // 2})
    assert [line.split() for line in table.splitlines()] == [
        ["device", "free", "before", "weights", "may", "take", "weights", "take"],
        ["cuda:0", "80.0", "GiB", "68.0", "GiB", "60.0", "GiB"],
        ["cpu", "100.0", "GiB", "85.0", "GiB", "0.0", "MiB"],
        ["disk", "512.0", "MiB"],
    ]


def test_which_devices_a_process_sees() -> None:
    assert visible_device_variables(()) == {}
    variables = visible_device_variables(("2", "0"))
    assert variables["CUDA_VISIBLE_DEVICES"] == variables["ZE_AFFINITY_MASK"] == "2,0"
