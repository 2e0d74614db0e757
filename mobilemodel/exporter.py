"""Bundle -> .onnx, .npz, .safetensors, .sqlite3: plain files that other tools read."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mobilemodel import dtypes
from mobilemodel.bundle import Bundle, Tensor, open_bundle
from mobilemodel.ccv_export import export_ccv
from mobilemodel.dtypes import DType
from mobilemodel.errors import MalformedContentError, MobileModelError, UnsupportedSourceError, UsageError
from mobilemodel.files import OutputFile, same_file, writing
from mobilemodel_converters.onnx import build

if TYPE_CHECKING:
    import onnx

PROTOBUF_LIMIT = 2**31 - 1
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_SAFETENSORS_TYPES = {
    DType.FLOAT: "F32", DType.UINT8: "U8", DType.INT8: "I8", DType.UINT16: "U16", DType.INT16: "I16",
    DType.INT32: "I32", DType.INT64: "I64", DType.BOOL: "BOOL", DType.FLOAT16: "F16", DType.DOUBLE: "F64",
    DType.UINT32: "U32", DType.UINT64: "U64", DType.BFLOAT16: "BF16", DType.FLOAT8E4M3FN: "F8_E4M3",
    DType.FLOAT8E5M2: "F8_E5M2",
}  # fmt: skip


def silent(_: str) -> None:
    """Say nothing."""


def export(
    bundle: Bundle | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    klaus: bool = False,
    say: Callable[[str], None] = silent,
) -> list[str]:
    """Write a bundle's content, given open or by its path, in the format that the suffix names; return the paths.

    ``.onnx``: the graph with its weights inside, or in ``PATH.data`` beside it where the model exceeds 2 GiB.
    ``.npz``: the tensors by name; bfloat16 and float8, which numpy lacks, as their bits in unsigned integers, and
    types below 8 bits as one value in each byte. ``.safetensors``: the tensors by name, in their own types.

    ``.sqlite3``: a ccv convnet, for a graph that is one: convolutions with ReLU, pools and LRN, then full connects.
    Values are kept bit for bit: a layer is in binary16 where all its values are, else in float32. With ``klaus`` the
    weights of full connects that are palettes of one table become pictures of their codes beside the database,
    ``layer-11.png`` or, of at most 16 entries, ``layer-10-4bit.png``. ``say`` is told, one sentence each, what ccv has
    no place for and which full connects stay floats.

    Raises UsageError for another suffix, UnsupportedSourceError where the format cannot hold the bundle, naming the
    tensor or the first node; OutputExistsError, OutputError.
    """
    if not isinstance(bundle, Bundle):
        with open_bundle(bundle) as opened:
            return export(opened, path, force=force, klaus=klaus, say=say)
    writers: dict[str, Callable[[Bundle, Path, bool], list[str]]] = {
        ".onnx": _export_onnx,
        ".npz": _export_npz,
        ".safetensors": _export_safetensors,
        ".sqlite3": lambda bundle, path, force: export_ccv(bundle, path, force=force, klaus=klaus, say=say),
    }
    target = Path(path)
    writer = writers.get(target.suffix.lower())
    if writer is None:
        found = target.suffix or "none"
        raise UsageError("no export of this suffix", expected=", ".join(writers), found=found, file=str(path))
    if klaus and target.suffix.lower() != ".sqlite3":
        raise UsageError("Klaus's layout is one of ccv's", expected=".sqlite3", found=target.suffix, file=str(path))
    if bundle.file is not None and same_file(bundle.file, target):
        raise UsageError("the output is the bundle itself", file=str(path))
    try:
        return writer(bundle, target, force)
    except MobileModelError as error:
        raise error.within(file=bundle.file) from None


def _export_onnx(bundle: Bundle, path: Path, force: bool) -> list[str]:
    graph = bundle.graph()
    if graph is None:
        raise UnsupportedSourceError("the bundle has no graph", file=bundle.file)
    # Of a type that this version does not know no size is known: decoding it will be refused.
    known = [tensor for tensor in bundle.values() if dtypes.is_known(tensor.dtype_number)]
    size = len(graph) + sum(tensor.decoded_bytes + 64 for tensor in known)
    if size > PROTOBUF_LIMIT:
        return _export_large_onnx(bundle, graph, path, force)
    with OutputFile(path, force=force) as output:
        model = build.restore(graph, lambda name: _referred(bundle, name).raw())
        _write(output.file, model.SerializeToString(deterministic=True), path)
        output.commit()
    return [str(path)]


def _export_large_onnx(bundle: Bundle, graph: bytes, path: Path, force: bool) -> list[str]:
    """The weights go to a file beside the model, one at a time: protobuf holds no more than 2 GiB."""
    data = path.with_name(path.name + ".data")
    with OutputFile(path, force=force) as output, OutputFile(data, force=force) as weights:
        model = build.parse_graph(graph)
        offset = 0
        for proto in model.graph.initializer:
            if build.is_reference(proto):
                raw = _referred(bundle, proto.name).raw()
                if len(raw) == 0:
                    # ONNX Runtime reads past the end of the file for a length of 0.
                    build.embed(proto, raw)
                    continue
                _point_at(proto, data.name, offset, len(raw))
                _write(weights.file, raw, data)
                # ONNX Runtime maps external data: keep them at multiples of a page.
                gap = -len(raw) % 4096
                _write(weights.file, bytes(gap), data)
                offset += len(raw) + gap
        _write(output.file, model.SerializeToString(deterministic=True), path)
        weights.commit()
        output.commit()
    return [str(path), str(data)]


def _referred(bundle: Bundle, name: str) -> Tensor:
    if name not in bundle:
        raise MalformedContentError("the graph refers to a tensor that the bundle lacks", file=bundle.file, tensor=name)
    return bundle[name]


def _point_at(proto: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del proto.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        proto.external_data.add(key=key, value=value)


def _write(file: BinaryIO, raw: bytes | bytearray | memoryview, path: Path) -> None:
    with writing(path):
        file.write(raw)


def _plain_array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The values in a type that numpy's own files hold: bfloat16 and float8 as their bits, sub-byte types as one
    uint8 each."""
    array = tensor.numpy()
    if dtypes.is_native(tensor.dtype_number):
        return array
    if dtypes.bits(tensor.dtype_number) >= 8:
        return array.view(f"<u{array.dtype.itemsize}")
    return array.view(np.uint8)


def _export_npz(bundle: Bundle, path: Path, force: bool) -> list[str]:
    for name in bundle:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise UnsupportedSourceError("a name would leave the folder that the archive is unpacked to",
                                         file=bundle.file, tensor=name)  # fmt: skip
    with OutputFile(path, force=force) as output:
        with writing(path), zipfile.ZipFile(output.file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, tensor in bundle.items():
                array = _plain_array(tensor)
                with archive.open(zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        output.commit()
    return [str(path)]


def _export_safetensors(bundle: Bundle, path: Path, force: bool) -> list[str]:
    """Eight bytes with the length of a JSON header, the header, the values one after another."""
    header = {}
    offset = 0
    for name, tensor in bundle.items():
        kind = _SAFETENSORS_TYPES.get(DType(tensor.dtype_number)) if dtypes.is_known(tensor.dtype_number) else None
        if kind is None or name == "__metadata__":
            raise UnsupportedSourceError("safetensors files hold no tensor of this type or name", file=bundle.file,
                                         tensor=name, found=dtypes.name(tensor.dtype_number))  # fmt: skip
        end = offset + tensor.decoded_bytes
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with OutputFile(path, force=force) as output:
        _write(output.file, len(text).to_bytes(8, "little") + text, path)
        for tensor in bundle.values():
            _write(output.file, tensor.raw(), path)
        output.commit()
    return [str(path)]
