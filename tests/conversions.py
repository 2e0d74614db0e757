"""Converting an ONNX model within a folder: ``out.mm`` and what comes back of it, or the error that refuses it."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, TensorProto

import mobilemodel as mm
from mobilemodel.audit.report import Report, TensorReport
from mobilemodel.errors import LimitExceededError, MobileModelError
from tests import models


def convert(made: ModelProto, folder: Path, scheme: str = "lossless") -> dict[str, TensorReport]:
    """The rows of the report by name."""
    return {row.name: row for row in report_of(made, folder, scheme).tensors}


def report_of(made: ModelProto, folder: Path, scheme: str = "lossless") -> Report:
    """Convert ``model.onnx`` to ``out.mm``."""
    source = folder / "model.onnx"
    source.write_bytes(made.SerializeToString())
    return mm.convert(source, folder / "out.mm", scheme=scheme, options=mm.ConvertOptions(force=True))


def exported(folder: Path) -> ModelProto:
    """``out.mm`` as ONNX again."""
    with mm.open(folder / "out.mm") as bundle:
        mm.export(bundle, folder / "back.onnx", force=True)
    return ModelProto.FromString((folder / "back.onnx").read_bytes())


def attempt(raw: bytes, folder: Path, scheme: str = "kmeans-4") -> MobileModelError | None:
    """Convert; None where it works. The file is named as ONNX, so that its content is looked at in any case."""
    source = folder / "hostile.onnx"
    source.write_bytes(raw)
    try:
        mm.convert(source, folder / "out.mm", scheme=scheme, options=mm.ConvertOptions(force=True, converter="onnx"))
    except MobileModelError as error:
        check_error(error)
        return error
    return None


def check_error(error: MobileModelError) -> None:
    """The error names the file, has an exit code, and is short and printable."""
    text = str(error)
    assert error.file is not None
    assert "hostile.onnx" in error.file
    assert error.exit_code in (2, 3, 4), text
    assert len(text) < 3000
    assert all(character.isprintable() or character == "\n" for character in text), repr(text)
    assert not isinstance(error, (LimitExceededError,)) or error.expected


def plain() -> ModelProto:
    """One MatMul by a weight of 20 by 12."""
    return models.fc_ways()["MatMul, right"].model


def outside(location: str, offset: str = "0", length: str | None = "960", dims: tuple[int, ...] = (20, 12)) -> bytes:
    """``plain`` with external data, as claimed: no file is written."""
    made = plain()
    proto = made.graph.initializer[0]
    proto.ClearField("raw_data")
    proto.dims[:] = dims
    proto.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        if text is not None:
            proto.external_data.add(key=key, value=text)
    return made.SerializeToString()
