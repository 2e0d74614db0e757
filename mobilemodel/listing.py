"""What ``inspect`` shows: a bundle and its tensors without decoding a payload."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mobilemodel import codecs, dtypes
from mobilemodel.audit.report import preprocessing_text, size_text, table
from mobilemodel.bundle import Bundle, Tensor
from mobilemodel.errors import MobileModelError, escape
from mobilemodel.v1 import bundle_pb2 as pb

if TYPE_CHECKING:
    from mobilemodel.pipeline import Verification

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
        "preprocessing": [_preprocessing_json(step) for step in manifest.preprocessing],
        "graph_bytes": manifest.payloads[manifest.graph].stored_size if manifest.HasField("graph") else 0,
        "manifest_bytes": bundle.container.manifest_size,
        "tensors": [_tensor_json(item) for item in bundle.values()],
    }


def _value_json(value: pb.ValueInfo) -> dict[str, Any]:
    dims = [d.size if d.WhichOneof("value") == "size" else d.symbol or None for d in value.shape.dimensions]
    return {"name": value.name, "dtype": dtypes.name(value.dtype), "dims": dims if value.HasField("shape") else None}


def _preprocessing_json(step: pb.Preprocessing) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    fields = MessageToDict(step, preserving_proto_field_name=True)
    return {"text": preprocessing_text(step), "fields": fields}


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": tensor.name, "dims": list(tensor.shape), "dtype": dtypes.name(tensor.dtype_number),
        "encoding": tensor.encoding, "status": "OK",
    }  # fmt: skip
    try:
        found |= {
            "bits": tensor.bits, "stored_bytes": tensor.stored_bytes,
            "bits_per_weight": round(tensor.bits_per_weight, 4), "codecs": [codecs.name(c) for c in tensor.codecs],
        }  # fmt: skip
    except MobileModelError as error:
        # Of a later version, or too large for this reader: listed, not decoded.
        found["status"] = error.status
    loss = tensor.loss
    found["identical"] = loss is None
    found["sqnr_db"] = loss.sqnr_millidb / 1000 if loss is not None and loss.HasField("sqnr_millidb") else None
    return found


def list_bundle(bundle: Bundle) -> str:
    """The listing for people: what the bundle says of itself, then a table of its tensors."""
    manifest = bundle.manifest
    producer = escape(manifest.producer) or "an unnamed program"
    size = f"{bundle.size:,} bytes ({size_text(bundle.size)})"
    lines = [f"format {manifest.spec_major}.{manifest.spec_minor}, profile {bundle.profile}, {size}, by {producer}"]
    for what, text in (("scheme", manifest.scheme), ("licence", manifest.licence), ("about", manifest.description)):
        if text:
            lines.append(f"{what}: {escape(text, 1000)}")
    for source in manifest.sources:
        lines.append(f"source: {escape(source.file_name)} ({escape(source.format)})")
        if source.sha256:
            lines.append(f"  sha256 {source.sha256.hex()}")
    for what, values in (("input", manifest.inputs), ("output", manifest.outputs)):
        lines.extend(f"{what}: {_value_text(value)}" for value in values)
    lines.extend(f"preprocessing of {escape(s.input)}: {preprocessing_text(s)}" for s in manifest.preprocessing)
    found = [_tensor_json(tensor) for tensor in bundle.values()]
    rows = [_row(tensor, item) for tensor, item in zip(bundle.values(), found, strict=True)]
    header = ("tensor", "dims", "dtype", "encoding", "codec", "bytes", "bits/w", "SQNR dB")
    lines += ["", table(header, rows, frozenset((0, 1, 2, 3, 4)))]
    stored = sum(item.get("stored_bytes", 0) for item in found)
    graph = manifest.payloads[manifest.graph].stored_size if manifest.HasField("graph") else 0
    head = bundle.container.manifest_size
    lines += ["", f"{len(found)} tensors {stored:,} bytes, graph {graph:,}, manifest {head:,}"]
    unread = sum(item["status"] != "OK" for item in found)
    if unread:
        lines.append(f"{unread} of them cannot be decoded by this version")
    return "\n".join(lines)


def _value_text(value: pb.ValueInfo) -> str:
    found = _value_json(value)
    dims = "?" if found["dims"] is None else " x ".join("?" if d is None else escape(str(d)) for d in found["dims"])
    return f"{escape(value.name)} {found['dtype']} {dims}"


def _row(tensor: Tensor, found: dict[str, Any]) -> list[str]:
    dims = "x".join(map(str, tensor.shape)) or "scalar"
    start = [escape(tensor.name, 1024), dims, found["dtype"]]
    sqnr = "exact" if found["identical"] else "-" if found["sqnr_db"] is None else f"{found['sqnr_db']:.2f}"
    if found["status"] != "OK":
        return [*start, f"{tensor.encoding}: {found['status']}", "", "", "", sqnr]
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


def verification_json(found: Verification) -> dict[str, Any]:
    """What ``verify`` found as JSON values; a difference that no number tells (NaN, infinity) is null."""
    content = {"schema": "mobilemodel.verify/1", **asdict(found)}
    for output in content["outputs"]:
        for key in ("largest_absolute", "largest_relative"):
            output[key] = output[key] if math.isfinite(output[key]) else None
    return content
