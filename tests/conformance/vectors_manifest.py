"""Invalid vectors of the manifest: names, values, preprocessing, codecs and sizes, one fault each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mobilemodel.v1 import bundle_pb2 as pb
from tests.conformance.builder import (
    PNG,
    STORED,
    UINT8,
    ZLIB,
    ZSTD,
    Draft,
    halves,
)
from tests.conformance.parts import described, palette
from tests.conformance.rows import Row
from tests.conformance.vectors_invalid import Make, changed, one
from tests.conformance.vectors_invalid import refuse as refuse_in

ROWS: list[Row] = []
LIMITS = "security.md §3"
refuse = partial(refuse_in, rows=ROWS)

BAD = "MALFORMED_MANIFEST"

# §4.1: names, order, values.
FIELDS = "container.md §4.1"
refuse(
    "name-empty", "MALFORMED_MANIFEST", changed(lambda m: setattr(m.tensors[0], "name", "")), "An empty name.", FIELDS
)
refuse(
    "name-nul", "MALFORMED_MANIFEST", changed(lambda m: setattr(m.tensors[0], "name", "a\0b")), "NUL in a name.", FIELDS
)


def _named(*names: str) -> Make:
    def make() -> bytes:
        draft = Draft()
        for name in names:
            draft.small(name, b"\1", [1], UINT8)
        return draft.build()

    return make


refuse("name-order", "MALFORMED_MANIFEST", _named("b", "a"), "Names out of order.", FIELDS)
refuse(
    "name-order-utf16",
    "MALFORMED_MANIFEST",
    _named("\U0001f600", "\uffee"),
    "In order by UTF-16 units, not by bytes.",
    FIELDS,
)
refuse("name-twice", "MALFORMED_MANIFEST", _named("a", "a"), "A name twice.", FIELDS)
refuse(
    "sha256-31",
    "MALFORMED_MANIFEST",
    changed(lambda m: m.sources.add(format="onnx", sha256=bytes(31))),
    "A SHA-256 of 31 bytes.",
    FIELDS,
)
refuse("source-format", BAD, changed(lambda m: m.sources.add(file_name="a")), "A source without a format.", FIELDS)
for _index, _name in enumerate(("a/b", "a\\b", "..", "c:x", "a\0")):
    refuse(
        f"file-name-{_index}",
        "MALFORMED_MANIFEST",
        changed(lambda m, name=_name: m.sources.add(format="onnx", file_name=name)),  # type: ignore[misc]
        "A file name with a folder, a drive or NUL.",
        FIELDS,
    )
refuse(
    "input-twice",
    "MALFORMED_MANIFEST",
    changed(lambda m: m.inputs.add(name="data"), described),
    "Two inputs of one name.",
    FIELDS,
)
refuse(
    "output-unnamed",
    "MALFORMED_MANIFEST",
    changed(lambda m: m.outputs.add(), described),
    "An output without a name.",
    FIELDS,
)

# preprocessing.md §8.
Fields = dict[str, object]


def _preprocessing(name: str, status: str, about: str, *steps: Fields) -> None:
    def change(manifest: pb.Manifest) -> None:
        for step in steps:
            manifest.preprocessing.add(**step)

    refuse(f"preprocessing-{name}", status, changed(change, described), about, "preprocessing.md §8")


_preprocessing("input", BAD, "It names no input.", {"input": "prob"})
_preprocessing("input-1025", BAD, "1,025 bytes that name no input: no name's limit holds.", {"input": "n" * 1025})
_preprocessing("twice", BAD, "Two for one input.", {"input": "data"}, {"input": "data"})
_preprocessing("crop", BAD, "A crop with one side.", {"input": "data", "crop_height": 3})
_preprocessing(
    "resize-mode", BAD, "A resize without a mode.", {"input": "data", "resize": pb.Resize(height=1, width=1)}
)
_preprocessing(
    "resize-size",
    BAD,
    "A resize without a width.",
    {"input": "data", "resize": pb.Resize(mode=pb.Resize.MODE_WARP, height=1)},
)
_preprocessing(
    "resize-short",
    BAD,
    "The shorter side to two sizes.",
    {"input": "data", "resize": pb.Resize(mode=pb.Resize.MODE_SHORT, height=1, width=2)},
)
_preprocessing("mean-2", BAD, "Two means for three channels.", {"input": "data", "mean": [1, 2]})
_preprocessing(
    "mean-grey", BAD, "Three means for one channel.", {"input": "data", "mean": [1, 2, 3], "colour_order": 3}
)
_preprocessing("scale-infinite", BAD, "An infinite scale.", {"input": "data", "scale": [float("inf")]})
_preprocessing(
    "side", "LIMIT_EXCEEDED", "A side of 16,385 pixels.", {"input": "data", "crop_height": 16385, "crop_width": 1}
)


def _mean_picture(raw: int, **step: object) -> Make:
    def make() -> bytes:
        draft = described()
        picture = pb.MeanPicture(payload=draft.add(bytes(raw)), height=1, width=2)
        draft.manifest.preprocessing.add(input="data", mean_picture=picture, **step)
        return draft.build()

    return make


refuse("mean-picture-size", BAD, _mean_picture(23), "A mean picture of another size.", "preprocessing.md §8")
refuse("mean-and-picture", BAD, _mean_picture(24, mean=[1.0]), "A mean and a mean picture.", "preprocessing.md §8")

# codecs.md §1 and §2, as far as the manifest tells.
CODECS = "codecs.md §1"
SIZES = "codecs.md §2"


def _recorded(codec: int, stored: bytes, raw_size: int, dims: Sequence[int] = (2, 2)) -> Make:
    """A 4-bit palette whose only block has this entry."""

    def make() -> bytes:
        draft = Draft()
        palette(draft, "w", dims, [[0] * dims[1]] * dims[0], 4, halves(1, 2), 2)
        part = draft.parts[0]
        part.codec, part.stored, part.raw_size = codec, stored, raw_size
        return draft.build()

    return make


def _with_reference(field: str, codec: int, stored: bytes, raw_size: int) -> Make:
    """A sound bundle with labels, a graph or a report that has this entry."""

    def make() -> bytes:
        draft = one()
        setattr(draft.manifest, field, draft.stored(codec, stored, raw_size))
        return draft.build()

    return make


_with_labels = partial(_with_reference, "labels")
refuse("codec-zlib-matrix", BAD, _recorded(1, bytes(9), 2), "A block of codes by zlib.", CODECS)
refuse("codec-png-bytes", BAD, _with_labels(PNG, bytes(60), 9), "Labels by PNG.", CODECS)
refuse("raw-size", BAD, _recorded(STORED, bytes(3), 3), "raw_size is not what the encoding makes it.", SIZES)
refuse("raw-size-stored", BAD, _with_labels(STORED, b"ab", 3), "A stored payload whose sizes differ.", SIZES)
refuse("deflate-ratio", BAD, _with_labels(1, bytes(10), 1032 * 10 + 1025), "More than deflate can reach.", SIZES)
refuse("raw-size-unknown", BAD, _recorded(9, bytes(3), 3), "Of an unknown codec, and of another size.", SIZES, CODECS)
refuse(
    "string-65537",
    "LIMIT_EXCEEDED",
    changed(lambda m: setattr(m, "description", "s" * 65_537)),
    "A description of 65,537 bytes.",
    LIMITS,
)
for _field, _most, _about in (
    ("labels", 16 << 20, "16 MiB"),
    ("report", 16 << 20, "16 MiB"),
    ("graph", 2**31 - 1, "2^31 - 1"),
):
    refuse(
        f"{_field}-limit",
        "LIMIT_EXCEEDED",
        _with_reference(_field, ZSTD, bytes(10), _most + 1),
        f"A raw size of a byte more than {_about}: {_field}.",
        LIMITS,
    )


def _large_mean() -> bytes:
    draft = described()
    picture = pb.MeanPicture(payload=draft.stored(ZSTD, bytes(10), 12 << 24), height=1 << 12, width=1 << 12)
    draft.manifest.preprocessing.add(input="data", mean_picture=picture)
    return draft.build()


refuse("mean-picture-limit", "LIMIT_EXCEEDED", _large_mean, "A mean picture of 192 MiB.", LIMITS, "preprocessing.md §8")
refuse("raw-size-png", BAD, _recorded(PNG, bytes(60), 3), "A PNG whose raw_size is not the matrix's.", SIZES)


# container.md §4.2: what holds for foreign tensors too.
def _foreign(change: Callable[[Draft, pb.Tensor], object]) -> Make:
    """A sound tensor ``w``, and ``x`` with a feature of a later version and a payload that nothing else uses."""

    def make() -> bytes:
        draft = one()
        tensor = draft.tensor("x", [2])
        tensor.required_features.append("trellis")
        change(draft, tensor)
        return draft.build()

    return make


LATER = "container.md §4.2"
refuse("foreign-rank-17", "LIMIT_EXCEEDED", _foreign(lambda d, t: t.dims.extend([1] * 16)), "17 axes.", LATER, LIMITS)
refuse("foreign-name", BAD, _foreign(lambda d, t: setattr(t, "name", "a")), "A name out of order.", LATER, FIELDS)
refuse(
    "foreign-stored-size",
    BAD,
    _foreign(lambda d, t: d.stored(STORED, b"ab", 3)),
    "A stored payload whose sizes differ, and that only the foreign tensor can use.",
    LATER,
    SIZES,
)
refuse(
    "foreign-deflate-ratio",
    BAD,
    _foreign(lambda d, t: d.stored(ZLIB, bytes(10), 1032 * 10 + 1025)),
    "More than deflate can reach, in a payload that only the foreign tensor can use.",
    LATER,
    SIZES,
)
