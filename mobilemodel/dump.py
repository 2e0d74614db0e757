"""A bundle as typed JSON, the expected values of test vectors: strings only, so that no reader's JSON rounds a number.

The schema and the contract of a runner are in spec/vectors/README.md. As a program it is one: ``python -m
mobilemodel.dump [PATH]`` reads a bundle from PATH or stdin.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.bundle import Bundle, Tensor, open_bundle
from mobilemodel.container.validate import is_foreign
from mobilemodel.encodings.payloads import read_bytes
from mobilemodel.errors import MobileModelError
from mobilemodel.layout import elements_of
from mobilemodel.v1 import bundle_pb2 as pb

FIRST = 8
"""elements of an array that are shown beside its SHA-256"""
Json = dict[str, Any]


def dump(bundle: Bundle) -> Json:
    """Everything of a bundle that has meaning; what is damaged or not supported has a ``status`` in its place.

    Integers are decimal strings, floats and array elements the hexadecimal digits of their bits, arrays their shape,
    the SHA-256 of their little-endian bytes and their first 8 elements.
    """
    manifest = bundle.manifest
    out: Json = {
        "spec": f"{manifest.spec_major}.{manifest.spec_minor}",
        "file_size": str(manifest.file_size),
        "producer": manifest.producer,
        "licence": manifest.licence,
        "description": manifest.description,
        "scheme": manifest.scheme,
        "sources": [
            {"format": source.format, "file_name": source.file_name, "sha256": source.sha256.hex()}
            for source in manifest.sources
        ],
        "inputs": [_value(value) for value in manifest.inputs],
        "outputs": [_value(value) for value in manifest.outputs],
        "preprocessing": [_preprocessing(bundle, step) for step in manifest.preprocessing],
        "payloads": [_payload(entry) for entry in manifest.payloads],
        "tensors": [_tensor(tensor) for tensor in bundle.values()],
    }
    if manifest.HasField("graph"):
        out["graph"] = _trying(lambda: _bytes(bundle.graph() or b""))
    if manifest.HasField("labels"):
        out["labels"] = _trying(lambda: list(bundle.labels()))
    if manifest.HasField("report"):
        out["report"] = _trying(lambda: _bytes(bytes(read_bytes(bundle.container, manifest.report))))
    return out


def dump_json(bundle: Bundle) -> str:
    """``dump`` as text: sorted keys, two spaces, ASCII, a line feed at the end; the same bundle gives the same text."""
    return json.dumps(dump(bundle), sort_keys=True, indent=2) + "\n"


def _trying(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except MobileModelError as error:
        return {"status": error.status}


def _value(value: pb.ValueInfo) -> Json:
    out: Json = {"name": value.name, "dtype": str(value.dtype)}
    if value.HasField("shape"):
        out["shape"] = [
            {kind: str(getattr(dimension, kind))} if (kind := dimension.WhichOneof("value")) else {}
            for dimension in value.shape.dimensions
        ]
    return out


def _payload(entry: pb.Payload) -> Json:
    return {
        "offset": str(entry.offset),
        "stored_size": str(entry.stored_size),
        "raw_size": str(entry.raw_size),
        "crc32": f"{entry.crc32:08x}",
        "codec": str(entry.codec),
    }


def _preprocessing(bundle: Bundle, step: pb.Preprocessing) -> Json:
    out: Json = {
        "input": step.input,
        "crop_height": str(step.crop_height),
        "crop_width": str(step.crop_width),
        "colour_order": str(step.colour_order),
        "mean": _float_bits(step.mean),
        "scale": _float_bits(step.scale),
        "layout": str(step.layout),
    }
    if step.HasField("resize"):
        out["resize"] = {
            "mode": str(step.resize.mode),
            "height": str(step.resize.height),
            "width": str(step.resize.width),
            "kernel": str(step.resize.kernel),
            "antialias": str(int(step.resize.antialias)),
        }
    if step.HasField("mean_picture"):
        out["mean_picture"] = _trying(lambda: _array(bundle.mean_picture(step)))
    return out


def _float_bits(values: Iterable[float]) -> list[str]:
    return [f"{bits:08x}" for bits in np.array(list(values), "<f4").view("<u4").tolist()]


def _bytes(raw: bytes) -> Json:
    return {"size": str(len(raw)), "sha256": hashlib.sha256(raw).hexdigest()}


def _tensor(tensor: Tensor) -> Json:
    out: Json = {
        "name": tensor.name,
        "dtype": str(tensor.dtype_number),
        "dims": [str(dim) for dim in tensor.shape],
        "encoding": tensor.encoding,
        "required_features": list(tensor.message.required_features),
        "values": _trying(lambda: _values(tensor)),
    }
    if tensor.loss is not None:
        out["loss"] = {"largest_error": str(tensor.loss.largest_error)}
        if tensor.loss.HasField("sqnr_millidb"):
            out["loss"]["sqnr_millidb"] = str(tensor.loss.sqnr_millidb)
    if not is_foreign(tensor.message):
        for name, read in _parts(tensor).items():
            out[name] = _trying(lambda read=read: _array(read()))  # type: ignore[misc]
    return out


def _parts(tensor: Tensor) -> dict[str, Callable[[], npt.NDArray[Any] | None]]:
    """What the encoding has beside the values, each to be decoded on its own."""
    parts: dict[str, Callable[[], npt.NDArray[Any] | None]] = {}
    if tensor.encoding in ("palette", "affine"):
        parts["codes"] = lambda: tensor.indices().astype("<u4")
    if tensor.encoding == "palette":
        parts["tables"] = tensor.tables
    if tensor.encoding == "affine":
        parts["zeros"] = tensor.zeros
    if tensor.encoding == "affine" or tensor.message.palette.HasField("scales"):
        parts["scales"] = tensor.scales
    return parts


def _values(tensor: Tensor) -> Json:
    """A NaN that decoding makes has no bits of its own (spec/tensors.md §8): it is shown as the quiet one."""
    raw = tensor.raw()
    dense = tensor.message.dense
    if tensor.encoding != "dense" or dense.stored_dtype != tensor.dtype_number:
        values = np.frombuffer(raw, tensor.dtype).copy()
        values[np.isnan(values)] = np.nan
        raw = values.tobytes()
    bits = dtypes.bits(tensor.dtype_number)
    return _shown(bytes(raw), bits, tensor.shape, complex_parts=tensor.dtype.kind == "c")


def _array(array: npt.NDArray[Any] | None) -> Json:
    assert array is not None
    return _shown(array.tobytes(), 8 * array.dtype.itemsize, array.shape)


def _shown(raw: bytes, bits: int, shape: Sequence[int], *, complex_parts: bool = False) -> Json:
    return {
        "shape": [str(dim) for dim in shape],
        "sha256": hashlib.sha256(raw).hexdigest(),
        "first": _first(raw, bits, elements_of(shape), complex_parts),
    }


def _first(raw: bytes, bits: int, elements: int, complex_parts: bool) -> list[str]:
    count = min(FIRST, elements)
    if bits < 8:
        each = 8 // bits
        return [f"{raw[i // each] >> (bits * (i % each)) & ((1 << bits) - 1):x}" for i in range(count)]
    width = bits // 8
    pieces = [raw[width * i : width * (i + 1)] for i in range(count)]
    if complex_parts:
        return [piece[: width // 2][::-1].hex() + piece[width // 2 :][::-1].hex() for piece in pieces]
    return [piece[::-1].hex() for piece in pieces]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a conformance runner: JSON to stdout and 0, or a status to stderr and its exit code."""
    paths = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with open_bundle(paths[0] if paths else sys.stdin.buffer.read()) as bundle:
            sys.stdout.write(dump_json(bundle))
    except MobileModelError as error:
        sys.stderr.write(error.status + "\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
