"""The C reader against the Python reader: every encoding, stream, codec and type of any bundle, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import mobilemodel
from mobilemodel.bundle import Tensor
from mobilemodel.dtypes import DType
from mobilemodel.limits import Limits
from tests.native.expected import FLOATS, Decoded, bits_of_slice, output_types, same, slices
from tests.native.serving import FLOAT, FLOAT16, LIMITS, OK, USAGE, Served, What
from tests.native.wild import wild_bundles
from tests.strategies import bundles

files = bundles().map(lambda built: built.data) | wild_bundles()
"""what our writer makes, and what it never makes"""


def coded(tensor: Tensor) -> bool:
    return tensor.encoding in ("palette", "affine")


@given(data=files)
def test_values_are_those_of_the_reference(served: Served, data: bytes) -> None:
    """ "Two readers that decode the same tensor MUST produce the same bits" (tensors.md §8), in every output type."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        for index, tensor in enumerate(bundle.values()):
            for dtype in output_types(tensor):
                decoded = Decoded(tensor, dtype)
                found = served.decode(What.VALUES, index, dtype=dtype, count=slices(tensor))
                assert found[0] == OK
                assert same(found[1], decoded.raw(), decoded.made), (tensor, dtype)


@given(data=files, choice=st.data())
def test_ranges_are_slices(served: Served, data: bytes, choice: st.DataObject) -> None:
    """A range of slices of the first axis is that part of the whole; one that is not there is refused."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        for index, tensor in enumerate(bundle.values()):
            first = choice.draw(st.integers(0, slices(tensor)))
            count = choice.draw(st.integers(0, slices(tensor) - first))
            for dtype in output_types(tensor):
                decoded = Decoded(tensor, dtype)
                status, found = served.decode(What.VALUES, index, dtype=dtype, first=first, count=count)
                bits = bits_of_slice(tensor) if dtype == tensor.dtype_number else 8 * len(found) // max(count, 1)
                if first * bits % 8:
                    assert status == USAGE
                    continue
                assert status == OK
                wanted = decoded.raw()[first * bits // 8 : (first * bits + count * bits + 7) // 8]
                spare = -count * bits % 8
                if spare:  # elements of fewer than 8 bits; those behind the range are not part of it
                    found = found[:-1] + bytes([found[-1] & 0xFF >> spare])
                    wanted = wanted[:-1] + bytes([wanted[-1] & 0xFF >> spare])
                assert same(found, wanted, decoded.made), (tensor, dtype, first, count)
            beyond = choice.draw(st.sampled_from((slices(tensor) + 1, 2**31, 2**63, 2**64 - 1)))
            for start, length in ((0, beyond), (beyond, 0), (first, beyond), (1, 2**64 - 1)):
                refused = served.decode(What.VALUES, index, dtype=tensor.dtype_number, first=start, count=length)
                assert refused == (USAGE, b"")


@given(data=files, choice=st.data())
def test_rows_are_those_of_the_matrix(served: Served, data: bytes, choice: st.DataObject) -> None:
    """ "M[r, c] is the element whose permuted index, flattened row-major, is r C + c" (tensors.md §3.1)."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        for index, tensor in enumerate(bundle.values()):
            if not coded(tensor):
                assert served.decode(What.ROWS, index, dtype=FLOAT)[0] == USAGE
                continue
            rows = len(Decoded(tensor, FLOAT).rows())
            first = choice.draw(st.integers(0, rows))
            count = choice.draw(st.integers(0, rows - first))
            for dtype in (FLOAT, FLOAT16):
                decoded = Decoded(tensor, dtype)
                for start, length in ((0, rows), (first, count)):
                    status, found = served.decode(What.ROWS, index, dtype=dtype, first=start, count=length)
                    assert status == OK
                    wanted = decoded.rows()[start : start + length].tobytes()
                    assert same(found, wanted, np.dtype(np.float32 if dtype == FLOAT else np.float16))
            assert served.decode(What.ROWS, index, dtype=DType.DOUBLE, count=rows)[0] == USAGE
            assert served.decode(What.ROWS, index, dtype=FLOAT, first=1, count=rows)[0] == USAGE


@given(data=files, choice=st.data())
def test_codes_and_parameters_are_those_stored(served: Served, data: bytes, choice: st.DataObject) -> None:
    """Codes of any rows, tables, scales and zero points, "also where the bundle leaves them out"."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        for index, tensor in enumerate(bundle.values()):
            if not coded(tensor):
                for what in (What.CODES, What.TABLES, What.SCALES, What.ZEROS):
                    assert served.decode(what, index)[0] == USAGE
                continue
            codes = tensor.indices().astype("<u4")
            first = choice.draw(st.integers(0, len(codes)))
            count = choice.draw(st.integers(0, len(codes) - first))
            for start, length in ((0, len(codes)), (first, count)):
                found = served.decode(What.CODES, index, first=start, count=length)
                assert found == (OK, codes[start : start + length].tobytes())
            assert served.decode(What.CODES, index, first=1, count=len(codes))[0] == USAGE
            scales, zeros = tensor.scales(), tensor.zeros()
            assert served.decode(What.SCALES, index) == (OK, b"" if scales is None else scales.tobytes())
            tables = (OK, tensor.tables().tobytes()) if tensor.encoding == "palette" else (USAGE, b"")
            assert served.decode(What.TABLES, index) == tables
            assert served.decode(What.ZEROS, index) == ((USAGE, b"") if zeros is None else (OK, zeros.tobytes()))


@given(data=files, choice=st.data())
def test_buffers_that_are_too_small_are_refused(served: Served, data: bytes, choice: st.DataObject) -> None:
    """A wrong call is USAGE and touches nothing behind its buffers, which the process watches."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        for index, tensor in enumerate(bundle.values()):
            facts = served.facts(index)
            sizes = {dtype: len(Decoded(tensor, dtype).raw()) for dtype in output_types(tensor)}
            whole = [(What.VALUES, dtype, slices(tensor), size) for dtype, size in sizes.items()]
            if coded(tensor):
                codes, scales = tensor.indices(), tensor.scales()
                whole.append((What.ROWS, FLOAT, len(codes), tensor.elements * 4))
                whole.append((What.CODES, 0, len(codes), codes.size * 4))
                if scales is not None:
                    whole.append((What.SCALES, 0, 0, scales.nbytes))
            for what, dtype, count, size in whole:
                if size:
                    cut = choice.draw(st.integers(1, size) | st.just(1))
                    found = served.decode(what, index, dtype=dtype, count=count, out_cut=cut)
                    assert found == (USAGE, b""), (what, size, cut)
                if facts.decode_scratch:
                    cut = choice.draw(st.integers(1, facts.decode_scratch) | st.just(1))
                    found = served.decode(what, index, dtype=dtype, count=count, scratch_cut=cut)
                    assert found == (USAGE, b""), (what, facts.decode_scratch, cut)


@given(data=files)
def test_tensors_are_found_by_name_number_and_order(served: Served, data: bytes) -> None:
    """Three ways to the same message; what is not there is not found."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        found = served.walk(list(bundle))
        assert all(len(set(starts)) == 1 for starts in found)
        assert len({starts[0] for starts in found}) == len(bundle)
        for index, tensor in enumerate(bundle.values()):
            facts = served.facts(index)
            said = facts.status, facts.dtype, facts.rank, facts.elements, facts.slices
            assert said == (0, tensor.dtype_number, len(tensor.shape), tensor.elements, slices(tensor))
            assert served.find(tensor.name + "x") == (OK if tensor.name + "x" in bundle else "TENSOR_NOT_FOUND")
        assert served.find("") == "TENSOR_NOT_FOUND"
        assert served.ask("t", len(bundle).to_bytes(4, "little"))[0] == USAGE


@given(data=files)
def test_other_types_are_refused(served: Served, data: bytes) -> None:
    """A type that the tensor does not have is a wrong call."""
    assert served.open(data) == OK
    with mobilemodel.open(data) as bundle:
        for index, tensor in enumerate(bundle.values()):
            for dtype in {*range(28), 2**32 - 1} - set(output_types(tensor)):
                assert served.decode(What.VALUES, index, dtype=dtype, count=slices(tensor))[0] == USAGE


@given(data=files, name=st.sampled_from(LIMITS[:-2]), bound=st.integers(0, 300) | st.integers(0, 70_000))
def test_limits_are_the_callers(served: Served, name: str, data: bytes, bound: int) -> None:
    """ "A reader MAY be stricter, by the caller's argument" (security.md §3): as strict as the reference."""
    ours = "mean" if name == "mean_picture" else name
    wanted = OK
    try:
        mobilemodel.open(data, limits=Limits(**{ours: min(bound, getattr(Limits(), ours))})).close()
    except mobilemodel.MobileModelError as error:
        wanted = error.status
    assert served.open(data, {name: bound}) == wanted


def test_floats_are_what_the_tests_call_so() -> None:
    assert set(FLOATS) == {FLOAT, FLOAT16, DType.BFLOAT16}
