"""What ``inspect`` shows: a bundle and its tensors without decoding a payload."""

from __future__ import annotations

from typing import Any

from mobilemodel import codecs, dtypes
from mobilemodel.audit.report import size_text, table
from mobilemodel.bundle import Bundle, Tensor
from mobilemodel.errors import MobileModelError, escape
from mobilemodel.v1 import bundle_pb2 as pb

SCHEMA = "mobilemodel.inspect/1"


def listing_json(bundle: Bundle, tensor: Tensor | None = None) -> dict[str, Any]:
    """The listing as JSON values; with ``tensor`` that tensor alone."""
    if tensor is not None:
        return {"schema": SCHEMA, "tensor": _tensor_json(tensor)}
    manifest = bundle.manifest
    return {
        "schema": SCHEMA,
        "format": f"{manifest.spec_major}.{manifest.spec_minor}",
        "file_bytes": bundle.size,
        "profile": bundle.profile,
        "producer": manifest.producer,
        "scheme": manifest.scheme,
        "licence": manifest.licence,
        "description": manifest.description,
        "sources": [{"format": s.format, "file_name": s.file_name, "sha256": s.sha256.hex()} for s in manifest.sources],
        "inputs": [_value_json(value) for value in manifest.inputs],
        "outputs": [_value_json(value) for value in manifest.outputs],
        "graph_bytes": manifest.payloads[manifest.graph].stored_size if manifest.HasField("graph") else 0,
        "manifest_bytes": bundle.container.manifest_size,
        "tensors": [_tensor_json(item) for item in bundle.values()],
    }


def _value_json(value: pb.ValueInfo) -> dict[str, Any]:
    dims = [d.size if d.WhichOneof("value") == "size" else d.symbol or None for d in value.shape.dimensions]
    return {"name": value.name, "dtype": dtypes.name(value.dtype), "dims": dims if value.HasField("shape") else None}


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": tensor.name, "dims": list(tensor.shape), "dtype": dtypes.name(tensor.dtype_number),
        "encoding": tensor.encoding,
    }  # fmt: skip
    try:
        found |= {
            "bits": tensor.bits, "stored_bytes": tensor.stored_bytes, "bits_per_weight": round(tensor.bits_per_weight, 4),
            "codecs": [codecs.name(codec) for codec in tensor.codecs],
        }  # fmt: skip
    except MobileModelError as error:
        found["status"] = error.status
    if tensor.loss is not None:
        found["sqnr_db"] = tensor.loss.sqnr_millidb / 1000 if tensor.loss.HasField("sqnr_millidb") else None
    return found


def list_bundle(bundle: Bundle) -> str:
    """The listing for people: what the bundle says of itself, then a table of its tensors."""
    manifest = bundle.manifest
    lines = [
        f"format {manifest.spec_major}.{manifest.spec_minor}, profile {bundle.profile}, {bundle.size:,} bytes "
        f"({size_text(bundle.size)}), written by {escape(manifest.producer) or 'an unnamed program'}"
    ]
    for what, text in (("scheme", manifest.scheme), ("licence", manifest.licence), ("about", manifest.description)):
        if text:
            lines.append(f"{what}: {escape(text, 1000)}")
    for source in manifest.sources:
        lines.append(f"source: {escape(source.file_name)} ({escape(source.format)}) sha256 {source.sha256.hex()}")
    for what, values in (("input", manifest.inputs), ("output", manifest.outputs)):
        lines += [f"{what}: {_value_text(value)}" for value in values]
    for step in manifest.preprocessing:
        lines.append(f"preprocessing of {escape(step.input)}: {preprocessing_text(step)}")
    rows = [_row(tensor) for tensor in bundle.values()]
    header = ("tensor", "dims", "dtype", "encoding", "codec", "bytes", "bits/w", "SQNR dB")
    lines += ["", table(header, rows, frozenset((0, 1, 2, 3, 4)))]
    stored = sum(item["stored_bytes"] for item in map(_tensor_json, bundle.values()) if "stored_bytes" in item)
    graph = manifest.payloads[manifest.graph].stored_size if manifest.HasField("graph") else 0
    lines.append(f"\n{len(bundle)} tensors {stored:,} bytes, graph {graph:,}, manifest {bundle.container.manifest_size:,}")
    return "\n".join(lines)


def _value_text(value: pb.ValueInfo) -> str:
    found = _value_json(value)
    dims = "?" if found["dims"] is None else " x ".join("?" if d is None else escape(str(d)) for d in found["dims"])
    return f"{escape(value.name)} {found['dtype']} {dims}"


def _row(tensor: Tensor) -> list[str]:
    found = _tensor_json(tensor)
    dims = "x".join(map(str, tensor.shape)) or "scalar"
    start = [escape(tensor.name, 60), dims, found["dtype"]]
    if "status" in found:
        return [*start, f"{tensor.encoding}: {found['status']}", "", "", "", ""]
    sqnr = "exact" if tensor.loss is None else f"{found['sqnr_db']:.2f}" if found["sqnr_db"] is not None else "-"
    encoding = f"{tensor.encoding} {found['bits']}"
    if tensor.message.palette.codes.split:
        encoding += " split"
    per_weight = f"{tensor.bits_per_weight:.3f}"
    return [*start, encoding, " ".join(found["codecs"]), f"{tensor.stored_bytes:,}", per_weight, sqnr]


def list_tensor(tensor: Tensor) -> str:
    """One tensor in full: every field of its manifest entry."""
    found = _tensor_json(tensor)
    width = max(map(len, found))
    lines = [f"{key:<{width}}  {escape(str(value), 2000)}" for key, value in found.items()]
    return "\n".join([*lines, "", *(escape(line, 400) for line in str(tensor.message).splitlines())])


def preprocessing_text(step: pb.Preprocessing) -> str:
    """A preprocessing step in one line, in the order in which it happens."""
    parts = []
    if step.HasField("resize"):
        mode = pb.Resize.Mode.Name(step.resize.mode).removeprefix("MODE_").lower()
        kernel = pb.Resize.Kernel.Name(step.resize.kernel).removeprefix("KERNEL_").lower()
        parts.append(f"resize {mode} {step.resize.height}x{step.resize.width} {kernel}{' antialias' * step.resize.antialias}")
    if step.crop_height:
        parts.append(f"crop {step.crop_height}x{step.crop_width}")
    if step.colour_order:
        parts.append(pb.ColourOrder.Name(step.colour_order).removeprefix("COLOUR_ORDER_").lower())
    if step.mean:
        parts.append("minus " + ", ".join(f"{value:g}" for value in step.mean))
    if step.HasField("mean_picture"):
        parts.append(f"minus a picture of {step.mean_picture.height}x{step.mean_picture.width}")
    if step.scale:
        parts.append("times " + ", ".join(f"{value:g}" for value in step.scale))
    return "; ".join(parts)
