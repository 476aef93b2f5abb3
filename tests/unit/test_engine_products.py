"""Linear layers in oneDNN's arrangement: what torch's own compute, or torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers import TransformersEngine
from services.worker.engines.transformers.layers import products
from services.worker.engines.transformers.layers.fusion import FusedLinear, SoleLinear
from services.worker.engines.transformers.layers.products import (
    Int8Product,
    PackedProduct,
    PlainProduct,
    fastest_product,
)
from tests.contract.engine_client import EngineClient, running
from tests.generation import generate
from tests.models import checkpoint

PROMPT = "The quick brown fox"


def layers_of(client: EngineClient) -> set[type[torch.nn.Module]]:
    """The kinds of modules in a running engine's model."""
    loop = client.engine._assembly.step_loop  # type: ignore[attr-defined]
    return {type(module) for module in loop._runner._model.modules()}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")  # type: ignore[no-untyped-call]
@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("with_bias", [False, True])
def test_packed_weights_multiply_as_torch_does(rows: int, with_bias: bool) -> None:
    weight, bias = torch.randn(48, 40), torch.randn(48) if with_bias else None
    given = torch.randn(2, rows, 40)
    product = fastest_product(weight, bias)
    assert isinstance(product, PackedProduct)
    with torch.inference_mode():
        torch.testing.assert_close(product(given), F.linear(given, weight, bias))
    assert torch.equal(product.weight, weight)


def test_without_its_private_operations_layers_are_torchs_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "_PACKING", ("_no_such_operation",))
    assert isinstance(fastest_product(torch.randn(8, 8), None), PlainProduct)


def test_types_and_devices_that_it_does_not_have_are_torchs_own() -> None:
    assert isinstance(fastest_product(torch.randn(8, 8).half(), None), PlainProduct)
    assert isinstance(fastest_product(torch.empty(8, 8, device="meta"), None), PlainProduct)


async def test_layers_that_compute_something_else_are_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields: dict[str, Any] = {"max_tokens": 12, "ignore_eos": True, "temperature": 0.0}
    settings = EngineSettings(str(checkpoint()), device="cpu", dtype="float32", threads=1)
    expected = generate(checkpoint(), PROMPT, 12)
    async with running(TransformersEngine(settings)) as client:
        assert {FusedLinear, SoleLinear} <= layers_of(client)
        assert (await client.run(PROMPT, **fields)).token_ids == expected
    call = PackedProduct.__call__
    monkeypatch.setattr(PackedProduct, "__call__", lambda self, rows: call(self, rows) * 2)
    async with running(TransformersEngine(settings)) as client:
        assert not {FusedLinear, SoleLinear} & layers_of(client)
        assert (await client.run(PROMPT, **fields)).token_ids == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_comes_within_its_rounding(dtype: torch.dtype) -> None:
    chance = torch.Generator().manual_seed(1)
    weight = torch.randn((64, 96), generator=chance).to(dtype)
    bias = torch.randn(64, generator=chance).to(dtype)
    rows = torch.randn((1, 7, 96), generator=chance).to(dtype)
    with torch.inference_mode():
        product = Int8Product(weight, bias)
        got, exact = product(rows), F.linear(rows, weight, bias)
    assert got.dtype is dtype
    assert (got - exact).float().norm() < 0.03 * exact.float().norm()
    assert (product.weight - weight).float().abs().max() < weight.float().abs().max() / 127
    assert product.nbytes == weight.numel()


async def test_an_engine_in_int8_says_so_and_answers() -> None:
    settings = EngineSettings(str(checkpoint()), device="cpu", dtype="float32", quantization="int8")
    async with running(TransformersEngine(settings)) as client:
        assert client.engine.models[0].quantization == "int8"
        output = await client.run(PROMPT, temperature=0.0, max_tokens=8, ignore_eos=True)
    assert len(output.token_ids) == 8
