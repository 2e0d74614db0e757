"""Valid vectors of the container: framing, manifest, what a later version may add."""

from __future__ import annotations

from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    FLOAT,
    STORED,
    UINT8,
    ZLIB,
    Draft,
    bytes_field,
    floats,
    forge_crc,
    halves,
    key,
    number_field,
)
from tests.conformance.parts import chunked, described, palette
from tests.conformance.rows import Row, vector

ROWS: list[Row] = []


@vector(ROWS, "container.md §2", "container.md §4")
def empty() -> bytes:
    """No tensors and no payloads: the file is its head and its manifest."""
    return Draft().build()


@vector(ROWS, "container.md §4.2", "container.md §5")
def unknown_fields() -> bytes:
    """Optional fields of a later version in the manifest, a tensor, its encoding and its codes are passed over."""
    draft = Draft()
    tensor = palette(draft, "w", [2, 2], [[0, 1], [1, 0]], 1, halves(1, 2), 2)
    later = b"".join(
        (
            number_field(300, 7),
            number_field(300, 8),
            bytes_field(301, b"\xff\xfe"),
            key(302, 5) + bytes(4),
            key(303, 1) + bytes(8),
        )
    )
    tensor.palette.codes.MergeFromString(later)
    tensor.palette.MergeFromString(later)
    tensor.MergeFromString(later)
    draft.manifest.MergeFromString(later)
    return draft.build()


@vector(ROWS, "container.md §4.1", "container.md §4.2")
def later_minor() -> bytes:
    """spec_minor 7 opens."""
    draft = Draft()
    draft.manifest.spec_minor = 7
    draft.small("w", floats(1.0), [1])
    return draft.build()


@vector(ROWS, "container.md §4.2", "container.md §6")
def tensor_feature() -> bytes:
    """A tensor that requires an unknown feature fails alone, and its encoding is not checked; unused payloads pass."""
    draft = Draft()
    draft.small("a", floats(1.0), [1])
    tensor = draft.small("b", floats(2.0), [1])
    tensor.required_features.append("trellis")
    tensor.dense.byte_planes = True
    draft.add(b"used in a way of a later version")
    return draft.build()


@vector(ROWS, "container.md §4.2", "codecs.md §1")
def unknown_codec() -> bytes:
    """A payload of codec 9 makes its tensors fail alone, as a block, a table or a chunk."""
    draft = Draft()
    draft.small("a", floats(1.0), [1])
    tensor = palette(draft, "b", [2, 2], [[0, 1], [1, 0]], 1, halves(1, 2), 2)
    draft.parts[tensor.palette.codes.first_payload].codec = 9
    tensor = palette(draft, "c", [2, 2], [[0, 1], [1, 0]], 1, halves(1, 2), 2)
    draft.parts[tensor.palette.tables.payload].codec = 9
    chunked(draft, "d", [2], [(floats(1, 2), STORED)], FLOAT)
    draft.parts[-1].codec = 255
    return draft.build()


@vector(ROWS, "container.md §4.2", "tensors.md §1")
def later_encoding() -> bytes:
    """An encoding of a later version (field 8), and element type 99: both fail alone."""
    draft = Draft()
    draft.small("a", floats(1.0), [1])
    draft.tensor("b", [2]).MergeFromString(bytes_field(8, b"\x08\x01"))
    draft.small("c", b"\x00", [1]).dtype = 99
    return draft.build()


@vector(ROWS, "container.md §5")
def default_fields() -> bytes:
    """Fields that stand with their default value, and an empty packed run, mean what their absence means."""
    draft = Draft()
    codes = number_field(4, 1) + number_field(5, 1) + number_field(6, 0) + number_field(7, 1)
    codes = (
        bytes_field(1, b"") + number_field(3, 0) + codes + number_field(8, 0) + number_field(9, 0) + number_field(10, 0)
    )
    tables = number_field(1, 1) + number_field(2, 0) + number_field(3, 4)
    body = bytes_field(1, codes) + number_field(2, 2) + number_field(3, 1) + bytes_field(4, tables)
    tensor = bytes_field(1, b"w") + number_field(2, 1) + bytes_field(3, b"\x02")
    tensor += bytes_field(6, body + bytes_field(5, number_field(1, 0)))
    draft.matrix([[0, 1]], 1)
    draft.add(halves(5, 6))

    def edit(raw: bytes) -> bytes:
        at = raw.index(b"\x8a\x01\x1d")
        return raw[:at] + b"\x82\x01" + bytes([len(tensor)]) + tensor + raw[at:]

    return draft.build(edit)


@vector(ROWS, "container.md §2")
def paddings() -> bytes:
    """Payloads whose frames need no padding, a padding field of 65 bytes (one byte is none), and one of 2 bytes."""
    draft = Draft()
    for name, size in (("a", 62), ("b", 61), ("c", 60), ("d", 130), ("e", 1)):
        draft.small(name, bytes(range(size)), [size], UINT8)
    return draft.build()


@vector(ROWS, "container.md §2", "container.md §5")
def crc_zero() -> bytes:
    """A manifest whose CRC-32 is 0: the field is there all the same."""
    draft = Draft()
    draft.small("w", floats(1.0), [1])
    return draft.build(lambda raw: (more := raw + key(500, 5)) + forge_crc(more, 0))


@vector(ROWS, "container.md §4.1")
def names() -> bytes:
    """Names are ordered by their bytes, not by UTF-16 units or letters, and are not normalised."""
    draft = Draft()
    listed = ["Z", "a", "a b/c:0", "e\u0301", "\u00e9", "\uffee", "\U0001f600"]
    for name in sorted(listed, key=str.encode):
        draft.small(name, name.encode(), [len(name.encode())], UINT8)
    return draft.build()


@vector(ROWS, "container.md §4.1", "graph.md §1", "preprocessing.md §8", "tensors.md §1")
def described_model() -> bytes:
    """Sources, inputs, outputs, labels, preprocessing, graph, report and losses."""
    draft = described()
    draft.manifest.graph = draft.add(b"\x08\x08" + bytes_field(7, bytes_field(2, b"g")), ZLIB)
    draft.manifest.labels = draft.add("cat\nGr\u00fc\u00dfe\n\nlast\n".encode(), ZLIB)
    draft.manifest.report = draft.add(b'{"tensors": []}')
    step = draft.manifest.preprocessing.add(input="data", crop_height=227, crop_width=227)
    step.resize.CopyFrom(
        pb.Resize(
            mode=pb.Resize.MODE_SHORT,
            height=256,
            width=256,
            kernel=pb.Resize.KERNEL_BILINEAR_HALF_PIXEL,
            antialias=True,
        )
    )
    step.colour_order, step.layout = pb.COLOUR_ORDER_BGR, pb.LAYOUT_NCHW
    step.mean.extend((104.0, 117.0, 123.0))
    step.scale.append(0.017)
    for name, loss in (
        ("a", pb.Loss(sqnr_millidb=41234, largest_error=812)),
        ("b", pb.Loss(sqnr_millidb=-5)),
        ("c", pb.Loss(largest_error=1)),
    ):
        draft.small(name, floats(1.0), [1]).loss.CopyFrom(loss)
    return draft.build()


@vector(ROWS, "container.md §4.1", "preprocessing.md §5")
def mean_picture() -> bytes:
    """A mean picture of 2 x 3 pixels and three channels, by zlib; labels without a last line feed."""
    draft = described()
    step = draft.manifest.preprocessing.add(input="data", colour_order=pb.COLOUR_ORDER_RGB)
    step.resize.CopyFrom(
        pb.Resize(mode=pb.Resize.MODE_WARP, height=2, width=3, kernel=pb.Resize.KERNEL_BILINEAR_CORNERS)
    )
    payload = draft.add(floats(*[i * 1.5 for i in range(18)]), ZLIB)
    step.mean_picture.CopyFrom(pb.MeanPicture(payload=payload, height=2, width=3))
    draft.manifest.labels = draft.add(b"one\ntwo")
    return draft.build()


@vector(ROWS, "preprocessing.md §8", "container.md §4.2")
def later_preprocessing() -> bytes:
    """A mode, kernel, colour order and layout of a later version: the bundle opens."""
    draft = described()
    step = draft.manifest.preprocessing.add(input="data", colour_order=9, layout=9)
    step.resize.CopyFrom(pb.Resize(mode=9, height=1, width=2, kernel=9))  # type: ignore[arg-type]
    step.mean.extend((1.0, 2.0, 3.0))
    return draft.build()
