"""A second reader, written from spec/tensors.md §9 alone: slow, without numpy, and sharing no code with the package.

It takes what a well-formed file says for granted; what it decodes has to be what the package decodes, bit for bit.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence

import zstandard

from mobilemodel.v1 import bundle_pb2 as pb

BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16, 17: 8,
    18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
Rows = list[list[int]]


def ceil_div(a: int, b: int) -> int:
    return (a + b - 1) // b


class Reader:
    """Payloads and tensors of a bundle's bytes."""

    def __init__(self, data: bytes) -> None:
        size = shift = 0
        at = 11
        while True:
            size |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                break
        self.data = data
        self.manifest = pb.Manifest.FromString(data[at : at + size])
        self.offsets = []
        position = at + size
        for entry in self.manifest.payloads:
            stored = entry.stored_size
            header = 1 + max(1, ceil_div(stored.bit_length(), 7))
            gap = (64 - (position + header) % 64) % 64
            gap = 65 if gap == 1 else gap
            self.offsets.append(position + gap + header)
            position = self.offsets[-1] + stored

    def payload(self, index: int) -> bytes:
        """A payload's raw bytes."""
        entry = self.manifest.payloads[index]
        stored = self.data[self.offsets[index] : self.offsets[index] + entry.stored_size]
        if entry.codec == 1:
            return zlib.decompress(stored)
        if entry.codec == 2:
            return png_rows(stored)
        if entry.codec == 3:
            return zstandard.ZstdDecompressor().decompress(stored)
        return stored

    def cut(self, piece: pb.Slice) -> bytes:
        return self.payload(piece.payload)[piece.offset : piece.offset + piece.size]

    def values(self, tensor: pb.Tensor) -> bytes:
        """The decoded tensor's raw bytes."""
        kind = tensor.WhichOneof("encoding")
        if kind == "dense":
            return self.dense(tensor)
        return self.quantized(tensor, tensor.palette if kind == "palette" else tensor.affine)

    def dense(self, tensor: pb.Tensor) -> bytes:
        dense, left = tensor.dense, math.prod(tensor.dims)
        raw = b""
        if dense.HasField("small"):
            raw = self.cut(dense.small)
        elif left:
            for index in range(ceil_div(left, dense.chunk_elements)):
                chunk = self.payload(dense.first_payload + index)
                width = BITS[dense.stored_dtype] // 8
                if dense.byte_planes:
                    count = len(chunk) // width
                    chunk = bytes(chunk[plane * count + i] for i in range(count) for plane in range(width))
                raw += chunk
        if dense.stored_dtype == tensor.dtype:
            return raw
        if dense.stored_dtype == 16:
            return b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2))
        return b"".join(struct.pack("<f", value) for (value,) in struct.iter_unpack("<e", raw))

    def quantized(self, tensor: pb.Tensor, encoding: pb.Palette | pb.Affine) -> bytes:
        place = Matrix(encoding.codes, tensor.dims)
        out = [0.0] * (place.rows * place.columns)
        value = self.palette(encoding, place) if isinstance(encoding, pb.Palette) else self.affine(encoding, place)
        for r, row in enumerate(self.codes(place)):
            for c in range(place.columns):
                q, p = divmod(c, place.segment)
                s, j = divmod(p, place.vector)
                out[place.position(r, c)] = value(r, s, j, row[q * place.subvectors + s])
        return b"".join(rounded("<e" if tensor.dtype == 10 else "<f", v) for v in out)

    def palette(self, palette: pb.Palette, place: Matrix):  # type: ignore[no-untyped-def]
        tables = floats(self.cut(palette.tables), palette.table_type)
        scales = floats(self.cut(palette.scales), palette.scale_type) if palette.HasField("scales") else None

        def value(r: int, s: int, j: int, code: int) -> float:
            t = place.table(palette.tables_by, r, s)
            named = code < palette.entries
            entry = tables[(t * palette.entries + code) * place.vector + j] if named else 0.0
            return entry if scales is None else single(entry * scales[place.table(palette.scales_by, r, s)])

        return value

    def affine(self, affine: pb.Affine, place: Matrix):  # type: ignore[no-untyped-def]
        scales = floats(self.cut(affine.scales), 2)
        zeros: Sequence[int] = [1 << (place.codes.depth - 1)] * len(scales)
        if affine.HasField("zeros"):
            raw = self.cut(affine.zeros)
            zeros = struct.unpack(f"<{len(scales)}H", raw) if place.codes.depth == 16 else raw

        def value(r: int, s: int, j: int, code: int) -> float:
            t = place.table(affine.by, r, s)
            return single((code - zeros[t]) * scales[t])

        return value

    def codes(self, place: Matrix) -> Iterator[list[int]]:
        """Rows of codes, block by block."""
        codes, n = place.codes, place.codes_per_row
        for block in range(ceil_div(place.rows, codes.rows_per_block) if n else 0):
            rows = min(codes.rows_per_block, place.rows - block * codes.rows_per_block)
            if not codes.split:
                yield from unpack(self.payload(codes.first_payload + block), rows, n, codes.depth)
                continue
            plane = unpack(self.payload(codes.first_payload + 2 * block), rows, n, 1)
            ones = sum(map(sum, plane))
            rest = self.payload(codes.first_payload + 2 * block + 1)
            others = iter(unpack(rest, 1, ones, codes.depth)[0])
            for line in plane:
                yield [(u + (u >= codes.background)) if bit and (u := next(others)) >= 0 else codes.background
                       for bit in line]  # fmt: skip


class Matrix:
    """Order of axes and groupings, spec/tensors.md §3.1 and §3.2."""

    def __init__(self, codes: pb.Codes, dims: Sequence[int]) -> None:
        self.codes = codes
        self.view = list(codes.view) or list(dims)
        self.perm = list(codes.perm) or list(range(len(self.view)))
        sizes = [self.view[axis] for axis in self.perm]
        self.rows = math.prod(sizes[: codes.row_axes])
        self.columns = math.prod(sizes[codes.row_axes :])
        self.vector = codes.vector
        self.segment = codes.segment or self.columns
        self.subvectors = ceil_div(self.segment, self.vector)
        self.codes_per_row = self.columns // self.segment * self.subvectors if self.segment else 0

    def position(self, r: int, c: int) -> int:
        """Where the element at (r, c) stands in the tensor."""
        left = r * self.columns + c
        index = [0] * len(self.view)
        for axis in reversed(self.perm):
            left, index[axis] = divmod(left, self.view[axis])
        at = 0
        for digit, size in zip(index, self.view, strict=True):
            at = at * size + digit
        return at

    def table(self, by: pb.Grouping, r: int, s: int) -> int:
        row_group = by.row_group or max(self.rows, 1)
        col_group = by.col_group or max(self.subvectors, 1)
        return r // row_group * ceil_div(self.subvectors, col_group) + s // col_group


def unpack(raw: bytes, rows: int, width: int, depth: int) -> Rows:
    if depth == 16:
        half = len(raw) // 2
        high, low = unpack(raw[:half], rows, width, 8), unpack(raw[half:], rows, width, 8)
        return [[256 * a + b for a, b in zip(x, y, strict=True)] for x, y in zip(high, low, strict=True)]
    stride = ceil_div(width * depth, 8)
    return [
        [raw[i * stride + k * depth // 8] >> (8 - depth - k * depth % 8) & ((1 << depth) - 1) for k in range(width)]
        for i in range(rows)
    ]


def png_rows(png: bytes) -> bytes:
    width, height, depth = struct.unpack(">IIB", png[16:25])
    size = int.from_bytes(png[33:37], "big")
    lines, stride = zlib.decompress(png[41 : 41 + size]), ceil_div(width * depth, 8)
    above, out = bytes(stride), b""
    for start in range(0, height * (stride + 1), stride + 1):
        line = bytearray()
        for i, x in enumerate(lines[start + 1 : start + 1 + stride]):
            a, b, c = line[i - 1] if i else 0, above[i], above[i - 1] if i else 0
            nearest = min((a, b, c), key=lambda v: abs(a + b - c - v))
            line.append((x + (0, a, b, (a + b) // 2, nearest)[lines[start]]) & 0xFF)
        above = bytes(line)
        out += above
    return out


def floats(raw: bytes, kind: int) -> list[float]:
    return [value for (value,) in struct.iter_unpack("<e" if kind == 1 else "<f", raw)]


def single(value: float) -> float:
    """Round the exact product of two binary32 numbers, which a double holds, to binary32."""
    found: float = struct.unpack("<f", rounded("<f", value))[0]
    return found


def rounded(kind: str, value: float) -> bytes:
    """Round to binary32 or binary16, to nearest and ties to even."""
    try:
        return struct.pack(kind, math.nan if math.isnan(value) else value)
    except OverflowError:
        return struct.pack(kind, math.copysign(math.inf, value))
