"""The checks of a manifest, in the order of spec/container.md §6: the first failure is the error."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

from mobilemodel import dtypes, layout
from mobilemodel.container import framing
from mobilemodel.container.entries import PayloadEntries
from mobilemodel.errors import (
    LimitExceededError,
    MalformedManifestError,
    MalformedWireError,
    ManifestChecksumError,
    MisplacedPayloadError,
    MobileModelError,
    NotABundleError,
    TrailingDataError,
    TruncatedError,
    UnsupportedFeatureError,
    UnsupportedVersionError,
    escape,
)
from mobilemodel.limits import Limits
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel.wire import Buffer, check_grammar, fields, read_varint

SPEC_MAJOR = 1
KNOWN_FEATURES: frozenset[str] = frozenset()
"""format 1.0 names no feature"""
_ENTRY_SIZE = 29
_ENTRY_FIELDS = ("offset", "stored_size", "raw_size", "crc32", "codec")


def locate_manifest(data: Buffer, size: int, limits: Limits) -> tuple[int, int]:
    """Check length and magic of a file of ``size`` bytes and return where its manifest starts and ends.

    ``data`` holds at least the file's first 16 bytes, or all of them.
    """
    if size < len(framing.MAGIC) and framing.MAGIC.startswith(bytes(data[:size])):
        raise TruncatedError("the file ends within the magic", offset=size, expected="at least 16 bytes", found=size)
    if bytes(data[: len(framing.MAGIC)]) != framing.MAGIC:
        raise NotABundleError(
            "not a mobilemodel bundle", offset=0, expected="0d 4d 4d 42 31", found=bytes(data[:5]).hex(" ")
        )
    if size > limits.file:
        raise LimitExceededError("file size", expected=f"at most {limits.file} bytes", found=size)
    if size <= framing.HEAD_SIZE:
        raise TruncatedError("the file ends before its manifest", offset=size)
    if data[5] != framing.CRC_TAG or data[10] != framing.MANIFEST_TAG:
        raise MalformedWireError("the CRC or the manifest is not where it belongs", offset=5)
    # 5 bytes of varint at most: a longer length is over the limit, or not minimal.
    try:
        length, start = read_varint(data, framing.HEAD_SIZE, min(size, framing.HEAD_SIZE + 5))
    except MalformedWireError:
        if size < framing.HEAD_SIZE + 5 and all(byte >= 0x80 for byte in data[framing.HEAD_SIZE : size]):
            raise TruncatedError("the file ends within the manifest's length", offset=size) from None
        raise
    if length > limits.manifest:
        raise LimitExceededError("manifest size", expected=f"at most {limits.manifest} bytes", found=length)
    if start + length > size:
        raise TruncatedError(
            "the file ends within its manifest", offset=size, expected=f"{start + length} bytes", found=size
        )
    return start, start + length


def check_manifest(manifest: Buffer, crc32: int, size: int, limits: Limits) -> pb.Manifest:
    """Check all of a manifest against itself and the file's ``size``; return it parsed."""
    _check_version(manifest)
    if zlib.crc32(manifest) != crc32:
        raise ManifestChecksumError(
            "the manifest is damaged", expected=f"CRC {crc32:08x}", found=f"{zlib.crc32(manifest):08x}"
        )
    check_grammar(
        manifest, 0, len(manifest), pb.DESCRIPTOR.message_types_by_name["Manifest"], limits.nesting, limits.messages
    )
    parsed = pb.Manifest.FromString(bytes(manifest))
    _check_features(parsed, limits)
    _check_limits(parsed, limits)
    _check_places(parsed, manifest, size)
    _check_structure(parsed, limits)
    return parsed


def _check_version(manifest: Buffer) -> None:
    """``spec_major`` comes first, so that a later version is refused before anything else of it is read."""
    for field in fields(manifest, 0, len(manifest)):
        if field.number != 1 or field.wire_type != 0:
            break
        if field.value != SPEC_MAJOR:
            raise UnsupportedVersionError(
                "the bundle is of another major version of the format", expected=SPEC_MAJOR, found=field.value,
                advice="A newer mobilemodel may read it." if field.value > SPEC_MAJOR else None,
            )  # fmt: skip
        return
    raise MalformedWireError("the manifest does not begin with spec_major", offset=0)


def _check_features(manifest: pb.Manifest, limits: Limits) -> None:
    for names in (manifest.required_features, *(tensor.required_features for tensor in manifest.tensors)):
        if len(names) > limits.features:
            raise LimitExceededError("required features", expected=f"at most {limits.features}", found=len(names))
    for name in manifest.required_features:
        if name not in KNOWN_FEATURES:
            raise UnsupportedFeatureError("the bundle requires a feature that this reader does not know", found=name)


def _check_limits(manifest: pb.Manifest, limits: Limits) -> None:
    for what, count, most in (
        ("tensors", len(manifest.tensors), limits.tensors),
        ("payloads", len(manifest.payloads), limits.payloads),
    ):
        if count > most:
            raise LimitExceededError(what, expected=f"at most {most}", found=count)
    for name in _names(manifest):
        if len(name.encode()) > limits.name:
            raise LimitExceededError("a name", expected=f"at most {limits.name} bytes", found=len(name.encode()))
    for text in _strings(manifest):
        if len(text.encode()) > limits.string:
            raise LimitExceededError("a string", expected=f"at most {limits.string} bytes", found=len(text.encode()))
    for tensor in manifest.tensors:
        if len(tensor.dims) > limits.rank:
            raise LimitExceededError(
                "rank", tensor=tensor.name, expected=f"at most {limits.rank}", found=len(tensor.dims)
            )
        if layout.elements_of([dim for dim in tensor.dims if dim]) > limits.elements:
            raise LimitExceededError("elements", tensor=tensor.name, expected=f"at most {limits.elements}")


def _names(manifest: pb.Manifest) -> Iterable[str]:
    for tensor in manifest.tensors:
        yield tensor.name
    for value in (*manifest.inputs, *manifest.outputs):
        yield value.name


def _strings(manifest: pb.Manifest) -> Iterable[str]:
    yield from (manifest.producer, manifest.licence, manifest.description, manifest.scheme)
    yield from manifest.required_features
    for source in manifest.sources:
        yield from (source.format, source.file_name)
    for value in (*manifest.inputs, *manifest.outputs):
        for dimension in value.shape.dimensions:
            yield dimension.symbol
    for step in manifest.preprocessing:
        yield step.input
    for tensor in manifest.tensors:
        yield from tensor.required_features


def _check_places(manifest: pb.Manifest, raw: Buffer, size: int) -> None:
    """File size and offsets MUST be what the sizes make them (spec/container.md §3)."""
    entries = manifest.payloads
    for index, entry in enumerate(entries):
        if entry.ByteSize() != _ENTRY_SIZE or not all(map(entry.HasField, _ENTRY_FIELDS)):
            raise MalformedManifestError(
                f"payload entry {index}", expected=f"its five fields, {_ENTRY_SIZE} bytes", found=entry.ByteSize()
            )
    sizes = [entry.stored_size for entry in entries]
    placed = framing.frames(len(raw), sizes)
    expected = framing.end_of(len(raw), placed)
    if not manifest.HasField("spec_minor") or not manifest.HasField("file_size"):
        raise MalformedManifestError("spec_minor or file_size is missing")
    if manifest.file_size != expected:
        raise MalformedManifestError("file_size disagrees with the sizes", expected=expected, found=manifest.file_size)
    if size < expected:
        raise TruncatedError("the file is too short", offset=size, expected=f"{expected} bytes", found=size)
    if size > expected:
        raise TrailingDataError(
            "data follow the last payload", offset=expected, expected=f"{expected} bytes", found=size
        )
    for index, (entry, place) in enumerate(zip(entries, placed, strict=True)):
        if entry.offset != place.offset:
            raise MisplacedPayloadError(f"offset of payload {index}", expected=place.offset, found=entry.offset)


def _check_structure(manifest: pb.Manifest, limits: Limits) -> None:
    payloads = PayloadEntries(manifest.payloads)
    previous = b""
    for tensor in manifest.tensors:
        try:
            name = tensor.name.encode()
            if not name or b"\0" in name:
                raise MalformedManifestError("a tensor's name is empty or holds NUL")
            if previous and name <= previous:
                raise MalformedManifestError("tensors are not in ascending order of their names", found=tensor.name)
            previous = name
            _check_tensor(tensor, payloads, limits)
        except MobileModelError as error:
            raise error.within(tensor=tensor.name) from None
    if manifest.HasField("graph"):
        payloads.take(manifest.graph, "graph", limits.graph)
    if manifest.HasField("labels"):
        payloads.take(manifest.labels, "labels", limits.labels)
    if manifest.HasField("report"):
        payloads.take(manifest.report, "report", limits.report)
    _check_values(manifest)
    _check_preprocessing(manifest, payloads, limits)
    payloads.check_sizes()
    # A tensor of a later version may use payloads in ways that this reader cannot see.
    if not any(is_foreign(tensor) for tensor in manifest.tensors) and not payloads.used.all():
        raise MalformedManifestError(f"payload {int(payloads.used.argmin())} is used by nothing")


def is_foreign(tensor: pb.Tensor) -> bool:
    """Whether this reader can list a tensor but not decode it: a later feature, encoding or element type."""
    unknown = any(name not in KNOWN_FEATURES for name in tensor.required_features)
    return unknown or tensor.WhichOneof("encoding") is None or not dtypes.is_known(tensor.dtype)


def _check_tensor(tensor: pb.Tensor, payloads: PayloadEntries, limits: Limits) -> None:
    if is_foreign(tensor):
        return
    plan = layout.tensor_layout(tensor, limits)
    for run in plan.runs:
        payloads.take_run(run, limits)
    for piece in plan.slices:
        raw_size = payloads.take(piece.payload, "a slice", limits.table)
        if piece.offset + piece.size > raw_size:
            raise MalformedManifestError(f"a slice runs past payload {piece.payload}", expected=raw_size,
                                         found=piece.offset + piece.size)  # fmt: skip
        if piece.size != raw_size and raw_size > limits.pool:
            raise LimitExceededError(
                f"pool payload {piece.payload}", expected=f"at most {limits.pool} bytes", found=raw_size
            )


def _check_values(manifest: pb.Manifest) -> None:
    for source in manifest.sources:
        if source.sha256 and len(source.sha256) != 32:
            raise MalformedManifestError("sha256 of a source", expected="32 bytes", found=len(source.sha256))
        if not source.format:
            raise MalformedManifestError("a source has no format")
        name = source.file_name
        if name in (".", "..") or name.encode()[1:2] == b":" or not {"/", "\\", "\0"}.isdisjoint(name):
            raise MalformedManifestError("file_name of a source has a folder", found=escape(name))
    for values in (manifest.inputs, manifest.outputs):
        names = [value.name for value in values]
        if "" in names or len(set(names)) != len(names):
            raise MalformedManifestError("names of inputs or outputs are empty or repeated")


def _check_preprocessing(manifest: pb.Manifest, payloads: PayloadEntries, limits: Limits) -> None:
    inputs = {value.name for value in manifest.inputs}
    seen: set[str] = set()
    for step in manifest.preprocessing:
        if step.input not in inputs or step.input in seen:
            raise MalformedManifestError("preprocessing names no input, or one twice", found=step.input)
        seen.add(step.input)
        if (step.crop_height == 0) != (step.crop_width == 0):
            raise MalformedManifestError("a crop has one side")
        if step.HasField("resize") and not (step.resize.mode and step.resize.height and step.resize.width):
            raise MalformedManifestError("a resize has no mode or no size")
        if step.resize.mode == pb.Resize.MODE_SHORT and step.resize.height != step.resize.width:
            raise MalformedManifestError("a resize of the shorter side has two sizes")
        _check_picture_sides(step, limits)
        channels = 1 if step.colour_order == pb.COLOUR_ORDER_GREY else 3
        for what, values in (("mean", step.mean), ("scale", step.scale)):
            if len(values) not in (0, 1, channels) or not all(map(math.isfinite, values)):
                raise MalformedManifestError(
                    f"{what} of a preprocessing", expected=f"0, 1 or {channels} finite values", found=list(values)[:4]
                )
        if step.HasField("mean_picture"):
            if step.mean:
                raise MalformedManifestError("mean and mean_picture")
            picture = step.mean_picture
            size = 4 * picture.height * picture.width * channels
            if size == 0:
                raise MalformedManifestError("the mean picture has no size")
            payloads.take(picture.payload, "mean picture", limits.mean, exact=size)


def _check_picture_sides(step: pb.Preprocessing, limits: Limits) -> None:
    picture, resize = step.mean_picture, step.resize
    side = max(resize.height, resize.width, step.crop_height, step.crop_width, picture.height, picture.width)
    if side > limits.picture_side:
        raise LimitExceededError("a side of a picture", expected=f"at most {limits.picture_side} pixels", found=side)
