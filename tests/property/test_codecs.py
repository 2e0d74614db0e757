"""Codecs: what they write, what they refuse, and what a hostile stream costs (format 1.0 §3)."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel import codecs
from mobilemodel.codecs import Effort, Family, png
from mobilemodel.codecs import zlib as zlib_codec
from mobilemodel.codecs import zstd as zstd_codec
from mobilemodel.encodings import packing
from mobilemodel.errors import MalformedStreamError, UnsupportedCodecError
from mobilemodel.layout import MatrixShape, codes_shape
from mobilemodel.v1 import bundle_pb2 as pb

Bytes = npt.NDArray[np.uint8]
efforts = st.sampled_from(Effort)
families = st.sampled_from(Family)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[MatrixShape, bytes]:
    """A packed matrix of depth 1, 2, 4 or 8 and any entropy, its spare bits 0."""
    depth = draw(st.sampled_from((1, 2, 4, 8)))
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = generator.integers(0, draw(st.integers(1, 1 << depth)), (rows, columns)).astype(np.uint8)
    return codes_shape(rows, columns, depth), packing.pack(codes, depth).tobytes()


@given(st.binary(max_size=5000) | st.integers(0, 9000).map(bytes), families, efforts)
def test_bytes_round_trip(raw: bytes, family: Family, effort: Effort) -> None:
    """'Everything else: stored, zlib or zstd'; 'coded when smaller'."""
    codec, stored = codecs.encode_bytes(raw, family, effort)
    assert codec in (0, 1 if family is Family.BASELINE else 3)
    assert len(stored) <= len(raw)
    assert bytes(codecs.decode_bytes(codec, stored, len(raw))) == raw


@given(matrices(), families, efforts)
def test_matrices_round_trip(built: tuple[MatrixShape, bytes], family: Family, effort: Effort) -> None:
    """'Matrix blocks: stored, png or zstd'."""
    shape, raw = built
    codec, stored = codecs.encode_matrix(raw, shape, family, effort)
    assert codec in (0, 2 if family is Family.BASELINE else 3)
    assert bytes(codecs.decode_matrix(codec, memoryview(stored), shape)) == raw


@given(matrices())
def test_png_opens_elsewhere(built: tuple[MatrixShape, bytes]) -> None:
    """'Index packing is PNG's, so one packed matrix serves PNG': Pillow reads the same samples."""
    from PIL import Image

    shape, raw = built
    with Image.open(io.BytesIO(png.encode(raw, shape, thorough=False))) as image:
        assert image.size == (shape.width, shape.height)
        # Pillow unpacks 2 and 4 bits to 8, scaled to the full range; 1 bit to booleans.
        samples = np.asarray(image.convert("L") if shape.depth == 1 else image)
    scale = 255 // ((1 << shape.depth) - 1)
    assert np.array_equal(samples, packing.unpack(raw, shape.height, shape.width, shape.depth) * np.uint8(scale))


def filtered(rows: Bytes, kinds: list[int]) -> bytes:
    """Apply PNG's row filters by its definitions (PNG, third edition, §9.2), one byte at a time."""
    out = bytearray()
    above = [0] * rows.shape[1]
    for row, kind in zip(rows.tolist(), kinds, strict=True):
        out.append(kind)
        for i, value in enumerate(row):
            a, b, c = (row[i - 1] if i else 0), above[i], (above[i - 1] if i else 0)
            p = a + b - c
            paeth = min((a, b, c), key=lambda x: abs(p - x))
            out.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) % 256)
        above = row
    return bytes(out)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(header: bytes, *chunks: bytes) -> bytes:
    return png.SIGNATURE + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


SHAPE = MatrixShape(3, 5, 8)
HEADER = struct.pack(">IIBBBBB", 5, 3, 8, 0, 0, 0, 0)
ROWS = bytes(18)
IDAT = chunk(b"IDAT", zlib.compress(ROWS))


@given(matrices(), st.data())
def test_png_row_filters(built: tuple[MatrixShape, bytes], data: st.DataObject) -> None:
    """'Row filters 0-4 accepted.'"""
    shape, raw = built
    rows = np.frombuffer(raw, np.uint8).reshape(shape.height, shape.row_bytes)
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=shape.height, max_size=shape.height))
    header = struct.pack(">IIBBBBB", shape.width, shape.height, shape.depth, 0, 0, 0, 0)
    file = png_of(header, chunk(b"IDAT", zlib.compress(filtered(rows, kinds))))
    assert png.decode(file, shape) == raw


@pytest.mark.parametrize(
    "file",
    [
        b"",
        png.SIGNATURE,
        png_of(HEADER, IDAT)[:-1],
        png_of(HEADER, IDAT) + b"\0",
        png_of(HEADER),
        png_of(HEADER, IDAT, IDAT),
        png_of(HEADER, chunk(b"tEXt", b"a\0b"), IDAT),
        png_of(HEADER, IDAT, chunk(b"tIME", bytes(7))),
        png_of(HEADER, chunk(b"IDAT", zlib.compress(ROWS)[:9]), chunk(b"IDAT", zlib.compress(ROWS)[9:])),
        png_of(struct.pack(">IIBBBBB", 3, 5, 8, 0, 0, 0, 0), IDAT),
        png_of(struct.pack(">IIBBBBB", 5, 3, 4, 0, 0, 0, 0), IDAT),
        png_of(struct.pack(">IIBBBBB", 5, 3, 8, 3, 0, 0, 0), IDAT),
        png_of(struct.pack(">IIBBBBB", 5, 3, 8, 0, 0, 0, 1), IDAT),
        png_of(HEADER, chunk(b"IDAT", zlib.compress(bytes(17)))),
        png_of(HEADER, chunk(b"IDAT", zlib.compress(bytes(19)))),
        png_of(HEADER, chunk(b"IDAT", zlib.compress(b"\5" + bytes(17)))),
        png_of(HEADER, chunk(b"IDAT", zlib.compress(ROWS) + b"\0")),
        png_of(HEADER, IDAT[:-1] + b"\1"),
        png.SIGNATURE + chunk(b"IHDR", HEADER) + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(40),
    ],
    ids=itertools.count(),
)
def test_png_profile(file: bytes) -> None:
    """'Exactly IHDR, one IDAT, IEND; grey, no interlace; IHDR as the encoding implies.'"""
    assert png.decode(png_of(HEADER, IDAT), SHAPE) == bytes(15)
    with pytest.raises(MalformedStreamError):
        png.decode(file, SHAPE)


def test_png_of_nothing() -> None:
    """A PNG has at least one row and one column: a matrix without codes is stored."""
    assert codecs.encode_matrix(b"", MatrixShape(0, 0, 8), Family.BASELINE, Effort.QUICK) == (pb.CODEC_STORED, b"")
    with pytest.raises(MalformedStreamError):
        png.decode(png_of(bytes(4) + bytes(4) + b"\x08" + bytes(4)), MatrixShape(0, 0, 8))


RAW = b"hello, hello, hello, hello, hello"
FRAME = zstandard.ZstdCompressor(level=3).compress(RAW)


def zstd_frame(raw: bytes, **parameters: int | bool) -> bytes:
    made = zstandard.ZstdCompressionParameters.from_level(3, **parameters)
    return zstandard.ZstdCompressor(compression_params=made).compress(raw)


def with_window(window_log: int, raw: bytes) -> bytes:
    """A frame of one raw block with a window descriptor and an 8-byte content size, by RFC 8878 §3.1.1."""
    block = (len(raw) << 3 | 1).to_bytes(3, "little") + raw
    return zstd_codec.MAGIC + b"\xc0" + bytes([(window_log - 10) << 3]) + len(raw).to_bytes(8, "little") + block


def with_dictionary() -> bytes:
    samples: list[bytes | bytearray | memoryview] = [
        bytes([i % 7, i % 5, i % 3]) * 40 + str(i).encode() * 9 for i in range(300)
    ]
    dictionary = zstandard.train_dictionary(1024, samples)
    return zstandard.ZstdCompressor(dict_data=dictionary).compress(RAW)


SKIPPABLE = bytes.fromhex("502A4D18") + (4).to_bytes(4, "little") + b"skip"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        FRAME[:3],
        FRAME[:5],
        FRAME[:-1],
        FRAME + b"\0",
        FRAME + FRAME,
        FRAME + zstandard.ZstdCompressor().compress(b""),
        FRAME + SKIPPABLE,
        SKIPPABLE + FRAME,
        zstd_frame(RAW, write_content_size=False),
        zstandard.ZstdCompressor().compress(RAW + b"!"),
        zstandard.ZstdCompressor().compress(RAW[:-1]),
        with_window(11, RAW),
        with_window(25, RAW),
        with_dictionary(),
        FRAME[:-3] + bytes([FRAME[-3] ^ 255]) + FRAME[-2:],
    ],
    ids=itertools.count(),
)
def test_zstd_profile(frame: bytes) -> None:
    """'zstd: exactly one frame, content size present and equal, window <= max(raw, 1 KiB) ..., no dictionary, no
    skippable frame, nothing after (libraries accept a second frame silently).'"""
    assert zstd_codec.decode(FRAME, len(RAW)) == RAW
    assert zstd_codec.decode(with_window(10, RAW), len(RAW)) == RAW
    with pytest.raises(MalformedStreamError):
        zstd_codec.decode(frame, len(RAW))


@pytest.mark.parametrize("tail", [b"x", zstandard.ZstdCompressor().compress(b""), SKIPPABLE])
def test_empty_zstd_frames_end_as_well(tail: bytes) -> None:
    """'Nothing after' holds for a frame of content size 0, where libraries return before they read on."""
    empty = zstandard.ZstdCompressor().compress(b"")
    assert zstd_codec.decode(empty, 0) == b""
    for frame in (empty + tail, empty[:-1]):
        with pytest.raises(MalformedStreamError):
            zstd_codec.decode(frame, 0)


def test_zstd_window_of_16_mib() -> None:
    """'window <= max(raw, 1 KiB) and <= 16 MiB'; our own frames of large payloads keep to it."""
    raw = bytes(17 << 20)
    for thorough in (False, True):
        frame = zstd_codec.encode(raw, thorough)
        assert zstandard.get_frame_parameters(frame).window_size <= 16 << 20
        assert len(zstd_codec.decode(frame, len(raw))) == len(raw)
    single_segment = zstd_frame(raw, window_log=25)
    assert zstandard.get_frame_parameters(single_segment).window_size > 16 << 20
    with pytest.raises(MalformedStreamError, match="window"):
        zstd_codec.decode(single_segment, len(raw))


def with_preset_dictionary() -> bytes:
    compressor = zlib.compressobj(zdict=b"hello")
    return compressor.compress(RAW) + compressor.flush()


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        zlib.compress(RAW)[:-1],
        zlib.compress(RAW)[:-4],
        zlib.compress(RAW) + b"\0",
        zlib.compress(RAW) * 2,
        zlib.compress(RAW + b"!"),
        zlib.compress(RAW[:-1]),
        zlib.compress(RAW)[:-1] + b"\0",
        zlib.compress(RAW)[2:-4],
        b"\x1f\x8b" + zlib.compress(RAW)[2:],
        with_preset_dictionary(),
    ],
    ids=itertools.count(),
)
def test_zlib_profile(stream: bytes) -> None:
    """'zlib and PNG streams end exactly at the last raw and the last input byte.'"""
    assert zlib_codec.decode(zlib.compress(RAW), len(RAW)) == RAW
    with pytest.raises(MalformedStreamError):
        zlib_codec.decode(stream, len(RAW))


@given(st.sampled_from((1, 2, 3)), st.binary(max_size=200), st.integers(0, 1 << 20))
def test_any_stream(codec: int, data: bytes, raw_size: int) -> None:
    """A decoder returns exactly the raw size or refuses, whatever it is given."""
    shape = MatrixShape(1, raw_size, 8)
    prefix = {1: b"\x78\x9c", 2: png.SIGNATURE, 3: zstd_codec.MAGIC}[codec]
    for stream in (data, prefix + data):
        try:
            raw = codecs.decode_matrix(codec, stream, shape) if codec == 2 else codecs.decode_bytes(
                codec, stream, raw_size
            )
        except MalformedStreamError:
            continue
        assert len(raw) == raw_size


def test_codecs_are_known_by_number_and_use() -> None:
    """'Matrix blocks: stored, png or zstd; everything else: stored, zlib or zstd'; an unknown codec is unsupported."""
    assert [codecs.name(number) for number in range(5)] == ["stored", "zlib", "png", "zstd", "codec 4"]
    with pytest.raises(UnsupportedCodecError):
        codecs.decode_bytes(4, b"", 0)
    with pytest.raises(UnsupportedCodecError):
        codecs.decode_matrix(4, b"", SHAPE)
    with pytest.raises(MalformedStreamError):
        codecs.decode_bytes(2, png_of(HEADER, IDAT), 15)
    with pytest.raises(MalformedStreamError):
        codecs.decode_matrix(1, zlib.compress(bytes(15)), SHAPE)
    with pytest.raises(MalformedStreamError):
        codecs.decode_bytes(0, b"abc", 4)


GIB = 1 << 30
RLE = (131072 << 3 | 2).to_bytes(3, "little") + b"\0"
BOMBS = {
    "claims": zstd_codec.MAGIC + b"\x80" + bytes([14 << 3]) + GIB.to_bytes(4, "little") + RLE * 250,
    "makes": zstd_codec.MAGIC + b"\x80" + bytes([0]) + (1024).to_bytes(4, "little") + RLE * 250,
    "deflates": zlib.compress(bytes(1 << 20), 9),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("raw_size", [GIB, 1024])
def test_bombs(name: str, raw_size: int) -> None:
    """'zeros reach 32,692:1': 1 KiB that claims or makes far more fails before memory of that size is asked for."""
    tracemalloc.start()
    try:
        with pytest.raises(MalformedStreamError):
            codecs.decode_bytes(1 if name == "deflates" else 3, BOMBS[name], raw_size)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


BOUNDED = """
import resource, sys
from mobilemodel import codecs
from mobilemodel.errors import MalformedStreamError

size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20),) * 2)
for line in sys.stdin:
    codec, stream, raw_size = line.split()
    try:
        codecs.decode_bytes(int(codec), bytes.fromhex(stream), int(raw_size))
    except MalformedStreamError:
        print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds the address space through /proc")
def test_bombs_in_a_bounded_address_space() -> None:
    """The same with all that the C libraries allocate: 64 MiB of address space are enough to refuse each."""
    numbered = [(1 if name == "deflates" else 3, stream.hex()) for name, stream in BOMBS.items()]
    lines = [f"{codec} {stream} {raw_size}" for codec, stream in numbered for raw_size in (GIB, 1024)]
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["refused"] * 6, "")


def test_zstd_reaches_its_largest_ratio() -> None:
    """The bound on raw / stored that is checked before allocating refuses no frame that a decoder can decode."""
    blocks = 64
    rle = (131072 << 3 | 2).to_bytes(3, "little") + b"\0"
    last = (131072 << 3 | 3).to_bytes(3, "little") + b"\0"
    size = blocks * 131072
    frame = zstd_codec.MAGIC + b"\x80" + bytes([13 << 3]) + size.to_bytes(4, "little") + rle * (blocks - 1) + last
    assert zstd_codec.decode(frame, size) == bytes(size)
