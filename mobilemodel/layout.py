"""How a tensor's dims become rows, codes, blocks and bytes: integer arithmetic alone (spec/tensors.md §3 to §6).

Every size here follows from the manifest, so that a reader knows each payload's raw size before it touches one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mobilemodel import dtypes
from mobilemodel.errors import LimitExceededError, MalformedManifestError, UnsupportedEncodingError
from mobilemodel.limits import FORMAT_LIMITS, SMALL_DENSE, Limits
from mobilemodel.v1 import bundle_pb2 as pb

DEPTHS = (1, 2, 4, 8, 16)


def elements_of(dims: Sequence[int]) -> int:
    """Number of elements of a tensor of ``dims``; a scalar has one."""
    return math.prod(dims)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class MatrixShape:
    """A packed matrix as PNG sees it: ``height`` rows of ``width`` samples of ``depth`` bits (1, 2, 4 or 8)."""

    height: int
    width: int
    depth: int

    @property
    def row_bytes(self) -> int:
        return ceil_div(self.width * self.depth, 8)

    @property
    def raw_size(self) -> int:
        return self.height * self.row_bytes


@dataclass(frozen=True)
class PayloadUse:
    """One use of a payload by a tensor: ``raw_size`` is None where it depends on another payload's content."""

    payload: int
    raw_size: int | None
    matrix: bool


@dataclass(frozen=True)
class PayloadRun:
    """``count`` payloads from ``first`` on, each ``step``-th, that a tensor uses alike; the last may be shorter.

    A manifest may name 65,535 payloads in each of 65,535 tensors: what is checked at opening is a run, not each use.
    """

    first: int
    count: int
    step: int
    raw_size: int
    last_raw_size: int
    matrix: bool
    exact: bool = True
    """False: the sizes are upper bounds, because the raw size depends on another payload's content"""

    def uses(self) -> list[PayloadUse]:
        """Each use of the run."""
        sizes = [self.raw_size] * (self.count - 1) + [self.last_raw_size]
        return [
            PayloadUse(self.first + index * self.step, size if self.exact else None, self.matrix)
            for index, size in enumerate(sizes)
        ]


@dataclass(frozen=True)
class CodesLayout:
    """The matrix of codes of one tensor, with the names of spec/tensors.md §3."""

    view: tuple[int, ...]
    perm: tuple[int, ...]
    rows: int
    """R"""
    columns: int
    """C: values in a row"""
    depth: int
    vector: int
    """d: values for each code"""
    segment: int
    """L: values in a segment"""
    rows_per_block: int
    first_payload: int
    split: bool
    background: int

    @property
    def segments(self) -> int:
        """Segments of a row, C / L."""
        return self.columns // self.segment if self.segment else 0

    @property
    def subvectors(self) -> int:
        """S: codes in a segment."""
        return ceil_div(self.segment, self.vector)

    @property
    def codes_per_row(self) -> int:
        """N = (C / L) S."""
        return self.segments * self.subvectors

    @property
    def empty(self) -> bool:
        return self.rows == 0 or self.codes_per_row == 0

    @property
    def blocks(self) -> int:
        return 0 if self.empty else ceil_div(self.rows, self.rows_per_block)

    @property
    def payloads(self) -> int:
        return self.blocks * (2 if self.split else 1)

    @property
    def index_range(self) -> int:
        """Codes that the streams can spell: 2^depth, and the background beside them where the stream is split."""
        return (1 << self.depth) + (1 if self.split else 0)

    def block_rows(self, block: int) -> int:
        """Rows of codes in a block; the last one may be shorter."""
        return min(self.rows_per_block, self.rows - block * self.rows_per_block)

    def plain_shape(self, block: int) -> MatrixShape:
        """Shape of a plain block; depth 16 is stored as twice the rows of 8 bits."""
        return codes_shape(self.block_rows(block), self.codes_per_row, self.depth)

    def plane_shape(self, block: int) -> MatrixShape:
        """Shape of a split block's 1-bit plane."""
        return MatrixShape(self.block_rows(block), self.codes_per_row, 1)

    def others_shape(self, count: int) -> MatrixShape:
        """Shape of the ``count`` codes of a split block that are not the background: one row."""
        return codes_shape(1, count, self.depth) if count else MatrixShape(0, 0, min(self.depth, 8))

    def tables(self, by: pb.Grouping) -> int:
        """Number of tables (or scales) that a grouping asks for."""
        rows, columns = self.group_sizes(by)
        return ceil_div(self.rows, rows) * ceil_div(self.subvectors, columns)

    def group_sizes(self, by: pb.Grouping) -> tuple[int, int]:
        """Rows and sub-vectors that share a table; never 0."""
        return by.row_group or max(self.rows, 1), by.col_group or max(self.subvectors, 1)


def codes_shape(rows: int, columns: int, depth: int) -> MatrixShape:
    """Shape of the packed matrix of ``rows`` x ``columns`` codes."""
    return MatrixShape(2 * rows, columns, 8) if depth == 16 else MatrixShape(rows, columns, depth)


def codes_layout(codes: pb.Codes, dims: Sequence[int], limits: Limits = FORMAT_LIMITS) -> CodesLayout:
    """Check ``codes`` against the tensor's dims and compute its matrix.

    Raises MalformedManifestError for a field that contradicts the dims, LimitExceededError for sizes over a limit.
    """
    view = tuple(codes.view) or tuple(dims)
    if len(view) > limits.rank:
        raise LimitExceededError("view has too many axes", expected=f"at most {limits.rank}", found=len(view))
    # An empty tensor's view may name any other sizes beside its 0; bounded, they still fit every index type.
    if elements_of([size for size in view if size]) > limits.elements:
        raise LimitExceededError("elements of the view", expected=f"at most {limits.elements}")
    if elements_of(view) != elements_of(dims):
        raise MalformedManifestError(
            "view has another number of elements than dims", expected=list(dims), found=list(view)
        )
    perm = tuple(codes.perm) or tuple(range(len(view)))
    if len(perm) != len(view) or sorted(perm) != list(range(len(view))):
        raise MalformedManifestError("perm is no permutation of the view's axes", found=list(perm[: limits.rank]))
    if codes.row_axes > len(view):
        raise MalformedManifestError("row_axes exceeds the rank", expected=f"at most {len(view)}", found=codes.row_axes)
    if codes.depth not in DEPTHS:
        raise MalformedManifestError("depth", expected="1, 2, 4, 8 or 16", found=codes.depth)
    if codes.vector < 1:
        raise MalformedManifestError("vector", expected="at least 1", found=0)
    if codes.vector > limits.vector:
        raise LimitExceededError("vector", expected=f"at most {limits.vector}", found=codes.vector)
    if codes.rows_per_block < 1:
        raise MalformedManifestError("rows_per_block", expected="at least 1", found=0)
    permuted = [view[axis] for axis in perm]
    columns = elements_of(permuted[codes.row_axes :])
    segment = codes.segment or columns
    if segment > columns or (segment and columns % segment):
        raise MalformedManifestError(
            "segment does not divide the row", expected=f"a divisor of {columns}", found=segment
        )
    layout = CodesLayout(
        view, perm, elements_of(permuted[: codes.row_axes]), columns, codes.depth, codes.vector, segment,
        codes.rows_per_block, codes.first_payload, codes.split, codes.background,
    )  # fmt: skip
    if not codes.split and codes.background:
        raise MalformedManifestError("background without a split stream", found=codes.background)
    if layout.empty:
        if codes.first_payload:
            raise MalformedManifestError("first_payload of an empty matrix", expected=0, found=codes.first_payload)
        return layout
    largest = layout.plain_shape(0)
    if max(largest.raw_size, layout.plane_shape(0).raw_size) > limits.block:
        raise LimitExceededError("a block of codes", expected=f"at most {limits.block} bytes", found=largest.raw_size)
    return layout


def codes_runs(layout: CodesLayout) -> list[PayloadRun]:
    """The payloads of a matrix of codes: its blocks, or the planes and the other codes of its split blocks."""
    first, count = layout.first_payload, layout.blocks
    if not count:
        return []
    if not layout.split:
        sizes = layout.plain_shape(0).raw_size, layout.plain_shape(count - 1).raw_size
        return [PayloadRun(first, count, 1, *sizes, matrix=True)]
    planes = layout.plane_shape(0).raw_size, layout.plane_shape(count - 1).raw_size
    full, last = (
        layout.others_shape(layout.block_rows(block) * layout.codes_per_row).raw_size for block in (0, count - 1)
    )
    return [
        PayloadRun(first, count, 2, *planes, matrix=True),
        PayloadRun(first + 1, count, 2, full, last, matrix=True, exact=False),
    ]


def float_size(float_type: int) -> int:
    """Bytes of a table's or scale's value. Raises MalformedManifestError for an unknown type."""
    if float_type == pb.FLOAT_TYPE_F16:
        return 2
    if float_type == pb.FLOAT_TYPE_F32:
        return 4
    raise MalformedManifestError("float type", expected="1 (F16) or 2 (F32)", found=float_type)


def check_slice(piece: pb.Slice, size: int, what: str) -> None:
    """Check a slice's own fields; its place in the payload is checked with the payload."""
    if piece.size != size:
        raise MalformedManifestError(f"size of {what}", expected=size, found=piece.size)
    if piece.offset % 16:
        raise MalformedManifestError(f"offset of {what}", expected="a multiple of 16", found=piece.offset)


def check_palette(palette: pb.Palette, dims: Sequence[int], limits: Limits) -> CodesLayout:
    """Check a palette's fields and slices' sizes; return its matrix."""
    layout = codes_layout(palette.codes, dims, limits)
    if palette.entries < 1:
        raise MalformedManifestError("entries", expected="at least 1", found=0)
    if palette.entries > limits.entries:
        raise LimitExceededError("entries", expected=f"at most {limits.entries}", found=palette.entries)
    if palette.entries > layout.index_range:
        raise MalformedManifestError(
            "entries exceed the codes", expected=f"at most {layout.index_range}", found=palette.entries
        )
    if layout.split and layout.background >= palette.entries:
        raise MalformedManifestError("background", expected=f"below {palette.entries}", found=layout.background)
    if not palette.HasField("tables"):
        raise MalformedManifestError("a palette has no tables")
    values = layout.tables(palette.tables_by) * palette.entries * layout.vector
    if values > limits.table_values:
        raise LimitExceededError("values of the tables", expected=f"at most {limits.table_values}", found=values)
    check_slice(palette.tables, values * float_size(palette.table_type), "tables")
    if palette.HasField("scales"):
        check_slice(palette.scales, layout.tables(palette.scales_by) * float_size(palette.scale_type), "scales")
    elif palette.scale_type or palette.HasField("scales_by"):
        raise MalformedManifestError("scale_type or scales_by without scales")
    return layout


def check_affine(affine: pb.Affine, dims: Sequence[int], limits: Limits) -> CodesLayout:
    """Check an affine encoding's fields and slices' sizes; return its matrix."""
    layout = codes_layout(affine.codes, dims, limits)
    if layout.depth < 4 or layout.vector != 1 or layout.split:
        raise MalformedManifestError("affine codes", expected="depth 4, 8 or 16, vector 1, not split")
    groups = layout.tables(affine.by)
    if not affine.HasField("scales"):
        raise MalformedManifestError("an affine encoding has no scales")
    check_slice(affine.scales, 4 * groups, "scales")
    if affine.HasField("zeros"):
        check_slice(affine.zeros, groups * (2 if layout.depth == 16 else 1), "zeros")
    return layout


def dense_chunks(dense: pb.Dense, elements: int) -> list[int]:
    """Elements of each chunk, the last one may be shorter; none with ``small`` or without elements."""
    if dense.HasField("small") or elements == 0:
        return []
    return [min(dense.chunk_elements, elements - at) for at in range(0, elements, dense.chunk_elements)]


def check_dense(dense: pb.Dense, dtype: int, dims: Sequence[int], limits: Limits) -> list[PayloadRun]:
    """Check a dense encoding's fields; return its chunks' payloads: one run, or none."""
    widened = dtype == dtypes.DType.FLOAT and dense.stored_dtype in (dtypes.DType.FLOAT16, dtypes.DType.BFLOAT16)
    if dense.stored_dtype != dtype and not widened:
        raise MalformedManifestError(
            "stored_dtype", expected=f"{dtype}, or a half type under 1", found=dense.stored_dtype
        )
    if dense.byte_planes and dtypes.bits(dense.stored_dtype) < 16:
        raise MalformedManifestError("byte_planes of elements below 2 bytes")
    elements = elements_of(dims)
    if dense.HasField("small"):
        if dense.chunk_elements or dense.first_payload or dense.byte_planes:
            raise MalformedManifestError("a small dense tensor has chunk fields")
        size = dtypes.raw_size(dense.stored_dtype, elements)
        if size > SMALL_DENSE:
            raise MalformedManifestError("small dense tensor", expected=f"at most {SMALL_DENSE} bytes", found=size)
        check_slice(dense.small, size, "small")
        return []
    if elements == 0:
        if dense.chunk_elements or dense.first_payload or dense.byte_planes:
            raise MalformedManifestError("an empty dense tensor has chunk fields")
        return []
    if dense.chunk_elements < 64 or dense.chunk_elements % 64:
        raise MalformedManifestError("chunk_elements", expected="a multiple of 64", found=dense.chunk_elements)
    size = dtypes.raw_size(dense.stored_dtype, min(dense.chunk_elements, elements))
    if size > limits.block:
        raise LimitExceededError("a dense chunk", expected=f"at most {limits.block} bytes", found=size)
    count = ceil_div(elements, dense.chunk_elements)
    if count > limits.payloads:
        raise LimitExceededError("dense chunks", expected=f"at most {limits.payloads}", found=count)
    last = dtypes.raw_size(dense.stored_dtype, elements - (count - 1) * dense.chunk_elements)
    return [PayloadRun(dense.first_payload, count, 1, size, last, matrix=False)]


@dataclass(frozen=True)
class TensorLayout:
    """What a tensor takes from the payloads: whole payloads, and slices of others."""

    runs: tuple[PayloadRun, ...]
    slices: tuple[pb.Slice, ...]
    codes: CodesLayout | None

    @cached_property
    def uses(self) -> tuple[PayloadUse, ...]:
        """Each whole payload that the tensor uses, in file order."""
        return tuple(sorted((use for run in self.runs for use in run.uses()), key=lambda use: use.payload))


def tensor_layout(tensor: pb.Tensor, limits: Limits = FORMAT_LIMITS) -> TensorLayout:
    """Check a tensor's encoding against its dims and type, and compute what it takes from the payloads.

    Raises MalformedManifestError, LimitExceededError; UnsupportedEncodingError where the encoding or the element
    type is of a later version.
    """
    if not dtypes.is_known(tensor.dtype):
        raise UnsupportedEncodingError("unknown element type", found=tensor.dtype)
    encoding = tensor.WhichOneof("encoding")
    if encoding is None:
        raise UnsupportedEncodingError("the tensor's encoding is of a later version of the format")
    if encoding == "dense":
        runs = check_dense(tensor.dense, tensor.dtype, tensor.dims, limits)
        small = (tensor.dense.small,) if tensor.dense.HasField("small") else ()
        return TensorLayout(tuple(runs), small, None)
    if tensor.dtype not in dtypes.QUANTIZABLE:
        raise MalformedManifestError(f"element type of a {encoding} tensor", expected="1 or 10", found=tensor.dtype)
    slices: tuple[pb.Slice, ...]
    if encoding == "palette":
        codes = check_palette(tensor.palette, tensor.dims, limits)
        scales = (tensor.palette.scales,) if tensor.palette.HasField("scales") else ()
        slices = (tensor.palette.tables, *scales)
    else:
        codes = check_affine(tensor.affine, tensor.dims, limits)
        zeros = (tensor.affine.zeros,) if tensor.affine.HasField("zeros") else ()
        slices = (tensor.affine.scales, *zeros)
    if codes.payloads > limits.payloads:
        raise LimitExceededError("blocks", expected=f"at most {limits.payloads} payloads", found=codes.payloads)
    return TensorLayout(tuple(codes_runs(codes)), slices, codes)
