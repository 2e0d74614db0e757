"""Bundles made by hand: a small one with everything in it, and files around manifests that no writer makes."""

from __future__ import annotations

import zlib

import numpy as np

from mobilemodel.codecs import Family
from mobilemodel.container import framing
from mobilemodel.dtypes import DType
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.wire import read_varint
from tests.strategies import DenseTensor, Geometry, PaletteTensor, write_bundle


def small_bundle() -> bytes:
    """2 to 4 KB with every encoding, a split stream, a pool, a graph, labels and a report."""
    generator = np.random.default_rng(5)
    half = generator.standard_normal(700).astype(np.float16)
    codes = (generator.random((6, 40)) < 0.2).astype(np.uint8) * generator.integers(1, 4, (6, 40)).astype(np.uint8)
    tables = generator.standard_normal((1, 4, 1)).astype(np.float16)
    manifest = pb.Manifest(producer="test", licence="MIT", scheme="kmeans")
    manifest.inputs.add(name="x", dtype=1).shape.dimensions.add(size=3)
    manifest.preprocessing.add(input="x", mean=[1.0], crop_height=2, crop_width=2)
    manifest.sources.add(format="onnx", file_name="a.onnx", sha256=bytes(32))
    return write_bundle(
        [
            DenseTensor("half", DType.FLOAT, (700,), DType.FLOAT16, half.tobytes(), 64),
            DenseTensor("large", DType.UINT8, (4100,), DType.UINT8, bytes(4100), 4096),
            PaletteTensor("split", DType.FLOAT, Geometry((6, 40)), codes, tables, (0, 0), None, (0, 0), 8, 0),
            PaletteTensor("plain", DType.FLOAT16, Geometry((6, 40), vector=1), codes, tables, (0, 0),
                          np.ones(6, np.float32), (1, 0), 30, None),
        ],
        Family.BASELINE, graph=b"graph " * 9, labels=["cat", "dög"], manifest=manifest,
    )  # fmt: skip


def manifest_span(data: bytes) -> tuple[int, int]:
    length, start = read_varint(data, framing.HEAD_SIZE, len(data))
    return start, start + length


def framed(manifest: pb.Manifest, stored: list[bytes]) -> bytes:
    """A file around any manifest whatever, its payload entries as they are but for offsets and file size."""
    size = len(manifest.SerializeToString())
    places = framing.frames(size, [len(payload) for payload in stored])
    for entry, place in zip(manifest.payloads, places, strict=True):
        entry.offset = place.offset
    manifest.file_size = framing.file_size(size, [len(payload) for payload in stored])
    raw = manifest.SerializeToString(deterministic=True)
    assert len(raw) == size
    pieces = [framing.head(raw, zlib.crc32(raw)), raw]
    for place, payload in zip(places, stored, strict=True):
        pieces += [place.content(), payload]
    return b"".join(pieces)


def empty_manifest(payloads: list[bytes]) -> pb.Manifest:
    """A manifest of stored payloads that no tensor uses yet."""
    manifest = pb.Manifest(spec_major=1, spec_minor=0, file_size=0)
    for raw in payloads:
        manifest.payloads.add(offset=0, stored_size=len(raw), raw_size=len(raw), crc32=zlib.crc32(raw), codec=0)
    return manifest
