"""Vectors that decode, and that a Verifier reports (spec/tensors.md §7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    F32,
    FLOAT16,
    Draft,
    floats,
    halves,
)
from tests.conformance.parts import affine, described, palette, put_floats, split
from tests.conformance.rows import Row
from tests.conformance.vectors_invalid import one, refuse

ROWS: list[Row] = []
BAD, LIMIT, STREAM, CONTENT = "MALFORMED_MANIFEST", "LIMIT_EXCEEDED", "MALFORMED_STREAM", "MALFORMED_CONTENT"


STREAMS = "tensors.md §3.3"


# What a Verifier reports; a reader decodes it.
def verify_fault(name: str, make: Callable[[Draft], object], about: str, *covers: str) -> None:
    def build() -> bytes:
        draft = Draft()
        make(draft)
        return draft.build()

    refuse(f"verify-{name}", CONTENT, build, about, *covers, scope="verify", rows=ROWS)


WRITERS, TOTAL, EXACT = "tensors.md §7", "tensors.md §5.3", "tensors.md §8"


def _scaled(tables: Sequence[float], scales: Sequence[float]) -> Callable[[Draft], None]:
    def make(draft: Draft) -> None:
        tensor = palette(draft, "w", [2], [[0], [1]], 1, floats(*tables), 2, table_type=F32)
        tensor.palette.scale_type = F32
        put_floats(draft, tensor.palette.scales, floats(*scales))

    return make


def _stored_bits(codes: bytes) -> Callable[[Draft], None]:
    def make(draft: Draft) -> None:
        palette(draft, "w", [1, 3], [[1, 2, 0]], 4, halves(1, 2, 3), 3)
        draft.parts[0].stored = codes

    return make


verify_fault(
    "code",
    lambda d: palette(d, "w", [1, 3], [[0, 3, 15]], 4, halves(1, 2, 3), 3),
    "Codes 3 and 15 of 3 entries decode to +0.0.",
    TOTAL,
    WRITERS,
)


def _vector_code(draft: Draft) -> None:
    tensor = palette(draft, "w", [1, 4], [[1, 2]], 2, halves(-1, -2, -3, -4), 2, vector=2)
    tensor.palette.scale_type = F32
    put_floats(draft, tensor.palette.scales, floats(2.0))


verify_fault("code-vector", _vector_code, "A code past the entries: all its elements are +0.0.", TOTAL, WRITERS)
verify_fault(
    "code-split-16",
    lambda d: split(d, "w", [1, 3], [[[1, 0, 1]]], [[65535, 5]], 16, 0, halves(7, 8), 2),
    "Code 65,536 of a split stream of depth 16 needs 17 bits; it is no entry, nor is 6.",
    TOTAL,
    STREAMS,
)
verify_fault(
    "table-nan", lambda d: palette(d, "w", [2], [[0], [1]], 1, halves(math.nan, 1), 2), "A NaN in a table.", WRITERS
)
verify_fault(
    "table-infinite",
    lambda d: palette(d, "w", [2], [[0], [1]], 1, halves(math.inf, 1), 2),
    "An infinite entry.",
    WRITERS,
)
verify_fault("scale-0", _scaled((1, 2), (0.0,)), "A scale of 0.", WRITERS)
verify_fault("scale-negative", _scaled((1, 2), (-1.0,)), "A negative scale.", WRITERS)
verify_fault("scale-subnormal", _scaled((1, 2), (1e-40,)), "A subnormal scale.", WRITERS)
verify_fault("product", _scaled((1e-20, 2), (1e-20,)), "A product below 2^-126.", WRITERS)
verify_fault(
    "affine-scale", lambda d: affine(d, "w", [1, 1], [[3]], 8, floats(math.inf)), "An infinite scale.", WRITERS
)


def _products(draft: Draft) -> None:
    affine(draft, "a", [1, 2], [[128, 129]], 8, floats(math.inf))
    affine(draft, "b", [1, 2], [[128, 127]], 8, floats(math.nan), dtype=FLOAT16)
    tensor = palette(draft, "c", [3], [[0], [1], [2]], 2, halves(0, -0.0, -2), 3)
    tensor.palette.scale_type = F32
    put_floats(draft, tensor.palette.scales, floats(math.inf))


verify_fault("products-nan", _products, "0 times infinity, and a NaN as a scale: NaNs that are made.", WRITERS, EXACT)


def _past_entries(draft: Draft) -> None:
    for name, scale in (("a", -1.0), ("b", math.inf)):
        tensor = palette(draft, name, [1, 2], [[0, 3]], 2, halves(1, 2), 2)
        tensor.palette.scale_type = F32
        put_floats(draft, tensor.palette.scales, floats(scale))


verify_fault("code-scale", _past_entries, "+0.0 of a code past the entries, times -1 and infinity.", TOTAL, WRITERS)
verify_fault("spare-bits", _stored_bits(b"\x12\x01"), "Spare bits at the end of a row.", WRITERS, STREAMS)


def _split_spare(index: int, stored: bytes) -> Callable[[Draft], None]:
    def make(draft: Draft) -> None:
        split(draft, "w", [1, 5], [[[0, 1, 0, 1, 1]]], [[0, 1, 2]], 2, 0, halves(*range(4)), 4)
        assert draft.parts[index].stored[0] & stored[0] == draft.parts[index].stored[0] != stored[0]
        draft.parts[index].stored = stored

    return make


verify_fault(
    "spare-bits-plane", _split_spare(0, b"\x5f"), "Spare bits of a plane, which do not count as ones.", WRITERS, STREAMS
)
verify_fault("spare-bits-others", _split_spare(1, b"\x1b"), "Spare bits after a block's other codes.", WRITERS, STREAMS)


def _hidden(draft: Draft) -> None:
    tensor = draft.small("w", floats(1.0), [1])
    draft.parts[0].stored = floats(1.0) + b"\1"
    draft.parts[0].raw_size = 5
    assert tensor.dense.small.size == 4


verify_fault("pool-bytes", _hidden, "A byte of a pool that belongs to no slice.", WRITERS)


def _labels_in_pool(draft: Draft) -> None:
    draft.small("w", b"cat dog bird cow", [4])
    draft.parts[0].stored += b"\nfish"
    draft.parts[0].raw_size += 5
    draft.manifest.labels = 0


verify_fault("pool-labels", _labels_in_pool, "A pool whose other bytes are those of the labels.", WRITERS)


def _mean_nan() -> bytes:
    draft = described()
    picture = pb.MeanPicture(payload=draft.add(floats(math.nan, 1, 2)), height=1, width=1)
    draft.manifest.preprocessing.add(input="data", mean_picture=picture)
    return draft.build()


refuse(
    "verify-mean-nan",
    CONTENT,
    _mean_nan,
    "A NaN in a mean picture.",
    WRITERS,
    "preprocessing.md §8",
    scope="verify",
    rows=ROWS,
)


def _report() -> bytes:
    draft = one()
    draft.manifest.report = draft.add(b"[1]")
    return draft.build()


refuse(
    "verify-report",
    CONTENT,
    _report,
    "A report that is no JSON object.",
    "container.md §4.1",
    scope="verify",
    rows=ROWS,
)
