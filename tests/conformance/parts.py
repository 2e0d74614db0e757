"""Tensors of each encoding for drafts of bundles."""

from __future__ import annotations

from collections.abc import Sequence

from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    F16,
    FLOAT,
    STORED,
    Draft,
)


def put_floats(draft: Draft, piece: pb.Slice, raw: bytes, codec: int = STORED) -> None:
    """Give a slice a payload of its own."""
    piece.payload = draft.add(raw, codec)
    piece.size = len(raw)


def palette(
    draft: Draft, name: str, dims: Sequence[int], codes: Sequence[Sequence[int]], depth: int, tables: bytes,
    entries: int, *, dtype: int = FLOAT, table_type: pb.FloatType = F16, codec: int = STORED, vector: int = 1,
) -> pb.Tensor:  # fmt: skip
    """Add a palette tensor of one plain block."""
    tensor = draft.tensor(name, dims, dtype)
    out = tensor.palette
    out.codes.depth, out.codes.vector, out.codes.row_axes = depth, vector, 1 if dims else 0
    out.codes.rows_per_block = max(len(codes), 1)
    out.codes.first_payload = draft.matrix(codes, depth, codec)
    out.entries, out.table_type = entries, table_type
    put_floats(draft, out.tables, tables)
    return tensor


def split(
    draft: Draft, name: str, dims: Sequence[int], planes: Sequence[Sequence[Sequence[int]]],
    others: Sequence[Sequence[int]], depth: int, background: int, tables: bytes, entries: int, codec: int = STORED,
) -> pb.Tensor:  # fmt: skip
    """Add a palette tensor of split blocks, given the plane and the other codes of each."""
    tensor = draft.tensor(name, dims)
    out = tensor.palette
    out.codes.depth, out.codes.vector, out.codes.row_axes = depth, 1, 1
    out.codes.rows_per_block, out.codes.split, out.codes.background = len(planes[0]), True, background
    out.codes.first_payload = len(draft.parts)
    for plane, rest in zip(planes, others, strict=True):
        draft.matrix(plane, 1, codec)
        if rest:
            draft.matrix([rest], depth, codec)
        else:
            draft.stored(STORED, b"", 0)
    out.entries, out.table_type = entries, F16
    put_floats(draft, out.tables, tables)
    return tensor


def affine(
    draft: Draft, name: str, dims: Sequence[int], codes: Sequence[Sequence[int]], depth: int, scales: bytes,
    zeros: bytes = b"", *, dtype: int = FLOAT, codec: int = STORED,
) -> pb.Tensor:  # fmt: skip
    """Add an affine tensor of one block."""
    tensor = draft.tensor(name, dims, dtype)
    out = tensor.affine
    out.codes.depth, out.codes.vector, out.codes.row_axes, out.codes.rows_per_block = depth, 1, 1, len(codes)
    out.codes.first_payload = draft.matrix(codes, depth, codec)
    put_floats(draft, out.scales, scales)
    if zeros:
        put_floats(draft, out.zeros, zeros)
    return tensor


def chunked(draft: Draft, name: str, dims: Sequence[int], chunks: Sequence[tuple[bytes, int]], dtype: int) -> pb.Tensor:
    tensor = draft.tensor(name, dims, dtype)
    tensor.dense.stored_dtype, tensor.dense.chunk_elements = dtype, 64
    tensor.dense.first_payload = len(draft.parts)
    for raw, codec in chunks:
        draft.add(raw, codec)
    return tensor


def planes(raw: bytes, size: int) -> bytes:
    return b"".join(raw[i::size] for i in range(size))


def described() -> Draft:
    """A draft with inputs, outputs and sources."""
    draft = Draft()
    manifest = draft.manifest
    manifest.producer, manifest.licence = "vectors 1", "Apache-2.0"
    manifest.description, manifest.scheme = "for tests", "kmeans-4"
    manifest.sources.add(format="onnx", file_name="net.onnx", sha256=bytes(range(32)))
    data = manifest.inputs.add(name="data", dtype=FLOAT)
    for size in (0, 3, 227, 227):
        data.shape.dimensions.add(size=size) if size else data.shape.dimensions.add(symbol="N")
    manifest.inputs.add(name="scalar", dtype=7).shape.SetInParent()
    prob = manifest.outputs.add(name="prob", dtype=FLOAT)
    prob.shape.dimensions.add()
    prob.shape.dimensions.add(size=3)
    manifest.outputs.add(name="unknown rank", dtype=FLOAT)
    return draft


def sort_tensors(draft: Draft) -> None:
    """Bring a draft's tensors into the order of their names."""
    tensors = sorted(draft.manifest.tensors, key=lambda tensor: tensor.name)
    del draft.manifest.tensors[:]
    draft.manifest.tensors.extend(tensors)
