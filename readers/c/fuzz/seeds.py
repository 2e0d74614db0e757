"""Make the fuzzers' seeds: the vectors, and bundles of the Python package's writer (tests/strategies.py).

    python readers/c/fuzz/seeds.py FOLDER        makes FOLDER/file, FOLDER/parts and FOLDER/tensors

``file`` has them as they are, ``parts`` in the encoding that fuzz_parts.c tells of, ``tensors`` has rows of decisions.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

import hypothesis  # noqa: E402
import hypothesis.configuration  # noqa: E402
import zstandard  # noqa: E402
from google.protobuf.descriptor import FieldDescriptor  # noqa: E402

from mobilemodel.v1 import bundle_pb2 as pb  # noqa: E402
from tests import strategies  # noqa: E402

LARGEST = 8192
"""bytes of a seed: larger ones are mutated too seldom"""
BUNDLES = 200
WRAPPED, STORED, ZLIB, PNG, ZSTD = 8, 0, 1, 2, 3
FILE_SIZE, PAYLOADS = 4, 17


def main(folder: Path) -> None:
    hypothesis.configuration.set_hypothesis_home_dir(folder / "hypothesis")
    files = {path.name: path.read_bytes() for path in sorted(ROOT.glob("spec/vectors/*/*.mm"))}
    files |= {f"written-{index}": data for index, data in enumerate(written_bundles())}
    parts = {}
    for name, data in files.items():
        for wrapped in (False, True):
            try:
                parts[f"{name}-{'wrapped' if wrapped else 'plain'}"] = parts_of(data, wrapped)
            except (ValueError, IndexError, zlib.error, zstandard.ZstdError):
                continue  # what no longer reads as a bundle's parts is a seed of ``file`` alone
    generator = random.Random(1)
    decisions = {str(index): generator.randbytes(generator.randint(4, 200)) for index in range(400)}
    for target, seeds in (("file", files), ("parts", parts), ("tensors", decisions)):
        (folder / target).mkdir(parents=True, exist_ok=True)
        small = {name: seed for name, seed in seeds.items() if len(seed) <= LARGEST}
        for name, seed in small.items():
            (folder / target / name).write_bytes(seed)
        print(f"{target}: {len(small)} seeds")


def written_bundles() -> list[bytes]:
    """Bundles of all encodings; the same ones each time."""
    found: list[bytes] = []

    @hypothesis.settings(
        max_examples=BUNDLES, derandomize=True, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(strategies.bundles())
    def collect(built: strategies.BuiltBundle) -> None:
        found.append(built.data)

    collect()
    return found


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        number |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return number, at
        shift += 7
    raise ValueError("a long varint")


def fields(data: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Field number, wire type, content, and the field as it stands after its tag."""
    at = 0
    while at < len(data):
        tag, start = read_varint(data, at)
        at = start
        kind = tag & 7
        if kind == 0:
            _, at = read_varint(data, start)
            content = start
        elif kind == 2:
            length, content = read_varint(data, start)
            at = content + length
        elif kind in (1, 5):
            content, at = start, start + (8 if kind == 1 else 4)
        else:
            raise ValueError("a group")
        if at > len(data):
            raise ValueError("a field that is cut")
        yield tag >> 3, kind, data[content:at], data[start:at]


def as_groups(data: bytes, message: Any) -> bytes:
    """The message of this descriptor with its inner messages as groups, which have no length."""
    out = b""
    for number, kind, content, standing in fields(data):
        if message is pb.Manifest.DESCRIPTOR and number in (FILE_SIZE, PAYLOADS):
            continue
        known = message.fields_by_number.get(number)
        if kind == 2 and known is not None and known.type == FieldDescriptor.TYPE_MESSAGE:
            inner = as_groups(content, known.message_type)
            out += varint(number << 3 | 3) + inner + varint(number << 3 | 4)
        else:
            out += varint(number << 3 | kind) + standing
    return out


def parts_of(data: bytes, wrapped: bool) -> bytes:
    """The input of fuzz_parts.c that makes this bundle, or one whose streams are not compressed."""
    length, start = read_varint(data, 11)
    manifest = data[start : start + length]
    entries = [pb.Payload.FromString(content) for number, _, content, _ in fields(manifest) if number == PAYLOADS]
    out = as_groups(manifest, pb.Manifest.DESCRIPTOR) + varint(4)
    for entry in entries:
        stored = data[entry.offset : entry.offset + entry.stored_size]
        out += wrapped_payload(entry, stored) if wrapped else plain_payload(entry, stored)
    return out


def plain_payload(entry: pb.Payload, stored: bytes) -> bytes:
    return bytes([entry.codec & 7]) + varint(entry.raw_size) + varint(len(stored)) + stored


def wrapped_payload(entry: pb.Payload, stored: bytes) -> bytes:
    """The payload's raw bytes; of a PNG its rows with their filters."""
    if entry.codec == PNG:
        width, depth = int.from_bytes(stored[16:20], "big"), stored[24]
        rows = zlib.decompress(stored[41 : 41 + int.from_bytes(stored[33:37], "big")])
        return bytes([PNG | WRAPPED]) + varint(width) + bytes([depth]) + varint(len(rows)) + rows
    if entry.codec == ZLIB:
        raw = zlib.decompress(stored)
    elif entry.codec == ZSTD:
        raw = zstandard.ZstdDecompressor().decompress(stored, max_output_size=1 << 20)
    else:
        return plain_payload(entry, stored)
    return bytes([entry.codec | WRAPPED]) + varint(len(raw)) + varint(len(raw)) + raw


if __name__ == "__main__":
    main(Path(sys.argv[1]))
