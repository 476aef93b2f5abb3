"""Bringing arrays to a device in one transfer."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.worker.engines.transformers.transfer import Packing, to_device, to_device_at_once

CPU = torch.device("cpu")
ARRAYS = st.lists(
    st.builds(
        lambda dtype, shape: np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape),
        st.sampled_from([np.int64, np.int32, np.float32]),
        st.lists(st.integers(0, 7), min_size=1, max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=6,
)


@given(ARRAYS)
def test_packed_arrays_come_out_as_they_were(arrays: list[np.ndarray]) -> None:
    packing = Packing.of(arrays)
    packed = packing.pack(arrays)
    assert packed.nbytes == 8 * packing.words
    for array, tensor in zip(arrays, packing.unpack(torch.from_numpy(packed)), strict=True):
        assert tensor.numpy().dtype == array.dtype
        assert np.array_equal(tensor.numpy(), array)
        if array.size:
            assert (tensor.data_ptr() - torch.from_numpy(packed).data_ptr()) % 128 == 0


def test_views_follow_the_row_that_they_are_of() -> None:
    packing = Packing.of([np.zeros(3, dtype=np.int64), np.zeros((2, 2), dtype=np.int32)])
    row = torch.from_numpy(packing.pack([np.zeros(3), np.zeros((2, 2))]))
    first, second = packing.unpack(row)
    row.copy_(torch.from_numpy(packing.pack([np.array([1, 2, 3]), np.array([[4, 5], [6, 7]])])))
    assert first.tolist() == [1, 2, 3]
    assert second.tolist() == [[4, 5], [6, 7]]


def test_a_cpu_keeps_the_memory() -> None:
    array = np.arange(4)
    assert to_device(array, CPU).data_ptr() == array.ctypes.data
    assert to_device_at_once([array], CPU)[0].data_ptr() == array.ctypes.data
