"""Indices of 1 to 8 bits in a run of bytes (docs/formats/ccv.md, qcnn.md)."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel_converters.bits import unpack


@given(st.integers(1, 8), st.binary(max_size=300), st.data())
def test_the_run_is_one_number_and_indices_stand_from_the_top_down(bits: int, raw: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 8 * len(raw) // bits))
    spelled = "".join(f"{byte:08b}" for byte in raw)
    expected = [int(spelled[bits * index : bits * (index + 1)], 2) for index in range(count)]
    assert unpack(np.frombuffer(raw, np.uint8), bits, count).tolist() == expected
