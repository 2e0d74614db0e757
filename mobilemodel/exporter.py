"""Bundle -> .onnx, .npz, .safetensors: plain files that other tools read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mobilemodel import dtypes
from mobilemodel.bundle import Bundle, Tensor
from mobilemodel.errors import (
    MissingDependencyError,
    OutputError,
    UnsupportedSourceError,
    UsageError,
    escape,
)
from mobilemodel.files import OutputFile

if TYPE_CHECKING:
    import onnx

PROTOBUF_LIMIT = 2**31 - 1
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def export(bundle: Bundle, path: str | os.PathLike[str], *, force: bool = False) -> list[str]:
    """Write a bundle's content in the format that the suffix names; return the paths written.

    ``.onnx``: the graph with its weights inside, or in ``PATH.data`` beside it where the model exceeds 2 GiB.
    ``.npz``: the tensors by name. ``.safetensors``: the tensors by name.

    Raises UsageError for another suffix, UnsupportedSourceError where the format cannot hold the bundle,
    OutputExistsError, OutputError.
    """
    writers: dict[str, Callable[[Bundle, Path, bool], list[str]]] = {
        ".onnx": _export_onnx,
        ".npz": _export_npz,
        ".safetensors": _export_safetensors,
    }
    target = Path(path)
    writer = writers.get(target.suffix.lower())
    if writer is None:
        raise UsageError("no export of this suffix", expected=", ".join(writers), found=target.suffix or "none", file=str(path))
    if bundle.file is not None and target.exists() and target.samefile(bundle.file):
        raise UsageError("the output is the bundle itself", file=str(path))
    return writer(bundle, target, force)


def _export_onnx(bundle: Bundle, path: Path, force: bool) -> list[str]:
    from mobilemodel_converters.onnx import build

    graph = bundle.graph()
    if graph is None:
        raise UnsupportedSourceError("the bundle has no graph", file=bundle.file)
    size = len(graph) + sum(tensor.decoded_bytes + 64 for tensor in bundle.values())
    if size > PROTOBUF_LIMIT:
        return _export_large_onnx(bundle, graph, path, force)
    with OutputFile(path, force=force) as output:
        model = build.restore(graph, lambda name: bundle[name].raw())
        _write(output.file, model.SerializeToString(deterministic=True), path)
        output.commit()
    return [str(path)]


def _export_large_onnx(bundle: Bundle, graph: bytes, path: Path, force: bool) -> list[str]:
    """The weights go to a file beside the model, one at a time: protobuf holds no more than 2 GiB."""
    from mobilemodel_converters.onnx import build

    data = path.with_name(path.name + ".data")
    with OutputFile(path, force=force) as output, OutputFile(data, force=force) as weights:
        model = build.parse_graph(graph)
        offset = 0
        for proto in model.graph.initializer:
            if build.is_reference(proto):
                raw = bundle[proto.name].raw()
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


def _point_at(proto: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    del proto.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        proto.external_data.add(key=key, value=value)


def _write(file: BinaryIO, raw: bytes | bytearray | memoryview, path: Path) -> None:
    try:
        file.write(raw)
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", file=str(path)) from None


def _plain_array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """The values in a type that numpy's own files hold: bfloat16 and float8 as their bits, sub-byte types as int8."""
    array = tensor.numpy()
    if array.dtype.kind != "V" and array.dtype.isbuiltin == 1:
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
        try:
            with zipfile.ZipFile(output.file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name, tensor in bundle.items():
                    info = zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE)
                    with archive.open(info, "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, _plain_array(tensor), allow_pickle=False)
        except OSError as error:
            raise OutputError(f"cannot write: {error.strerror}", file=str(path)) from None
        output.commit()
    return [str(path)]


def _export_safetensors(bundle: Bundle, path: Path, force: bool) -> list[str]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import save
    except ImportError:
        raise MissingDependencyError(
            "the safetensors package is not installed", advice="pip install 'mobilemodel[safetensors]'"
        ) from None
    with OutputFile(path, force=force) as output:
        content = {}
        for name, tensor in bundle.items():
            if dtypes.bits(tensor.dtype_number) < 8:
                raise UnsupportedSourceError("safetensors files hold no type below 8 bits", tensor=name)
            content[name] = np.ascontiguousarray(tensor.numpy())
        try:
            raw = save(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise UnsupportedSourceError(f"safetensors: {escape(str(error))}", file=bundle.file) from None
        _write(output.file, raw, path)
        output.commit()
    return [str(path)]
