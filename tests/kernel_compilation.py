"""Compiles the kernels for a GPU that need not be there: python -m tests.kernel_compilation 90."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

SHARED_MEMORY_BYTES = 99 * 1024
"""What the smallest of the GPUs in use give one program."""


def main() -> None:
    """Compiles each kernel as it runs for some sizes and types. Raises what is wrong."""
    from services.worker.engines.transformers.attention import triton_programs as programs

    capability = int(sys.argv[1])
    for dtype, tile, size, stages in (("bf16", 64, 128, 2), ("fp32", 32, 256, 1)):
        sizes = {"KEY_SIZE": size, "VALUE_SIZE": size, "VALUE": size}
        splits = {"MIN_SPLIT": 128, "MAX_SPLITS": 32, "TILE": tile}
        attending = {
            **sizes,
            "KEY": size,
            "GROUPS": 4,
            "BLOCK": 32,
            "TILE": tile,
            "HAS_SOFTCAP": True,
        }
        _compile(
            programs.store_tokens,
            dtype,
            {"KEY_SIZE": size, "VALUE_SIZE": size, "SIZE": size},
            capability,
            1,
        )
        _compile(
            programs.attend_splits,
            dtype,
            {**attending, **splits, "KV_HEADS": 8, "ROWS": 16},
            capability,
            stages,
        )
        joining = {**splits, "HEADS": 32, "VALUE_SIZE": size, "VALUE": size, "HAS_SINKS": True}
        _compile(programs.join_splits, dtype, joining, capability, 1)
        _compile(
            programs.attend_piece,
            dtype,
            {**attending, "ROWS": tile, "HAS_SINKS": True},
            capability,
            stages,
        )


def _compile(
    program: Any, dtype: str, constants: Mapping[str, object], capability: int, stages: int
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {
        "query": dtype, "keys": dtype, "values": dtype, "kept_keys": dtype, "kept_values": dtype,
        "sinks": dtype, "out": dtype, "result": dtype, "parts": "fp32", "all_highest": "fp32",
        "totals": "fp32", "tables": "i32", "lengths": "i32", "table": "i64", "block_ids": "i64",
        "offsets": "i64",
    }  # fmt: skip
    numbers = {"scale": "fp32", "softcap": "fp32"}
    signature = {
        name: "constexpr"
        if name in constants
        else f"*{types[name]}"
        if name in types
        else numbers.get(name, "i32")
        for name in program.arg_names
    }
    source = ASTSource(fn=program, signature=signature, constexprs=dict(constants))
    target = GPUTarget("cuda", capability, 32)
    made = triton.compile(source, target=target, options={"num_stages": stages})
    assert made.metadata.shared <= SHARED_MEMORY_BYTES, (
        f"{program.__name__}: {made.metadata.shared}"
    )
    sys.stdout.write(f"{program.__name__} {dtype} compiled, {made.metadata.shared} bytes shared\n")


if __name__ == "__main__":
    main()
