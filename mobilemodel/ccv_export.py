"""Bundle -> a ccv database, and in Klaus's layout the codes of its full connects as pictures beside it.

Every value is kept bit for bit; what ccv has no place for is said.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.bundle import Bundle, Tensor
from mobilemodel.codecs import png
from mobilemodel.encodings.matrix import from_matrix
from mobilemodel.errors import MalformedContentError, OutputExistsError, UnsupportedSourceError, UsageError, escape
from mobilemodel.files import OutputFile, same_file, writing
from mobilemodel.layout import MatrixShape, tensor_layout
from mobilemodel_converters.ccv.expression import Convnet, express
from mobilemodel_converters.ccv.graph import Constant
from mobilemodel_converters.ccv.preprocessing import Picture, picture_for
from mobilemodel_converters.ccv.rows import FullConnect
from mobilemodel_converters.ccv.schema import QUANT_ENTRIES, picture_name, picture_names
from mobilemodel_converters.ccv.writer import Content, is_half, write_database
from mobilemodel_converters.onnx import build

if TYPE_CHECKING:
    import onnx

Say = Callable[[str], None]


def export_ccv(bundle: Bundle, path: Path, *, force: bool, klaus: bool, say: Say) -> list[str]:
    """Write the database, with ``klaus`` the pictures beside it; return the paths, the database first.

    Nothing is at its place before everything is written. Raises UnsupportedSourceError naming the first node that ccv
    cannot express, MalformedContentError, LimitExceededError, OutputExistsError, OutputError.
    """
    graph = bundle.graph()
    if graph is None:
        raise UnsupportedSourceError("the bundle has no graph", file=bundle.file)
    convnet = express(build.parse_graph(graph))
    with ExitStack() as stack:
        database = stack.enter_context(OutputFile(path, force=force))
        found = _quantized_layers(bundle, convnet, say) if klaus else []
        pictures = [(item, stack.enter_context(item.output(bundle, path, force))) for item in found]
        written = [(item, output) for item, output in pictures if item.write(output, say)]
        content = Content(convnet, _picture(bundle, convnet, say), lambda constant: _values(bundle, constant),
                          {item.number: item.table.tobytes() for item, _ in written})  # fmt: skip
        # SQLite opens files by their names, and an output has none before it is whole.
        with writing(path), tempfile.TemporaryDirectory(prefix=".mobilemodel-", dir=database.folder,
                                                        ignore_cleanup_errors=True) as folder:  # fmt: skip
            built = Path(folder, "convnet")
            write_database(built, content)
            with built.open("rb") as file:
                shutil.copyfileobj(file, database.file, 1 << 20)
        outputs = [output for _, output in written]
        for output in (*outputs, database):
            output.commit()
    return [str(path), *(output.path for output in outputs)]


def _stored(bundle: Bundle, proto: onnx.TensorProto) -> Tensor:
    """The bundle's tensor that an initializer refers to."""
    tensor = bundle.get(proto.name)
    if tensor is None or tensor.shape != tuple(proto.dims) or tensor.dtype_number != proto.data_type:
        raise MalformedContentError("the graph refers to a tensor that the bundle lacks, or has in another shape",
                                    tensor=proto.name)  # fmt: skip
    return tensor


def _values(bundle: Bundle, constant: Constant) -> npt.NDArray[Any]:
    """The values of a constant, wherever they lie."""
    from onnx import numpy_helper

    proto = constant.tensor
    if build.is_reference(proto):
        return _stored(bundle, proto).numpy()
    try:
        values: npt.NDArray[Any] = numpy_helper.to_array(proto)
    except Exception:  # onnx has no list of what a tensor that contradicts itself raises
        raise MalformedContentError("a tensor in the graph has another size than its dims", tensor=proto.name) from None
    return values


def _picture(bundle: Bundle, convnet: Convnet, say: Say) -> Picture:
    if bundle.manifest.HasField("labels"):
        say("a ccv database has no place for class names: they are not in it")
    step = next((step for step in bundle.manifest.preprocessing if step.input == convnet.input_name), None)
    mean = bundle.mean_picture(step) if step is not None and step.HasField("mean_picture") else None
    return picture_for(step, mean, convnet.input, say)


@dataclass(frozen=True)
class _QuantizedLayer:
    """A full connect whose weight is codes and one table, which Klaus's layout holds as they are."""

    number: int
    layer: FullConnect
    tensor: Tensor
    table: npt.NDArray[np.float16]

    def output(self, bundle: Bundle, database: Path, force: bool) -> OutputFile:
        """The picture beside the database, under Klaus's name for it."""
        path = database.with_name(picture_name(self.number, len(self.table)))
        if bundle.file is not None and same_file(bundle.file, path):
            raise UsageError("the output is the bundle itself", file=str(path))
        for name in picture_names(self.number):
            other = database.with_name(name)
            if other != path and os.path.lexists(other):
                raise OutputExistsError("another picture of the same layer lies beside the output", file=str(other),
                                        advice="Move it away: a reader could not tell which one counts.")  # fmt: skip
        return OutputFile(path, force=force)

    def write(self, output: OutputFile, say: Say) -> bool:
        """Write the codes as a grey PNG: outputs x inputs, in ccv's order; False where a code names no entry.

        The depth is 8 also for 16 entries and fewer: Klaus's loader lets the system expand pictures to 8 bits, and
        that makes 17 i of a code i at depth 4, which is beyond the end of a table of 16.
        """
        layout = tensor_layout(self.tensor.message).codes
        assert layout is not None
        codes = self.tensor.indices()
        if int(codes.max()) >= len(self.table):
            _say_float(self.number, self.layer, "a code names no entry of the table", say)
            return False
        lying = from_matrix(codes.astype(np.uint8, copy=False), layout.view, layout.perm, self.tensor.shape)
        rows = np.ascontiguousarray(self.layer.in_order(lying))
        shape = MatrixShape(self.layer.count, self.layer.input.values, 8)
        with writing(output.path):
            output.file.write(png.encode(rows.data.cast("B"), shape, thorough=False))
        return True


def _quantized_layers(bundle: Bundle, convnet: Convnet, say: Say) -> list[_QuantizedLayer]:
    """The full connects that can become pictures; the others are named with the reason."""
    found = []
    for number, layer in enumerate(convnet.layers):
        if not isinstance(layer, FullConnect):
            continue
        if not build.is_reference(layer.weight.tensor):
            _say_float(number, layer, "its weight is in the graph", say)
            continue
        tensor = _stored(bundle, layer.weight.tensor)
        why = _obstacle(tensor)
        if why:
            _say_float(number, layer, why, say)
        else:
            found.append(_QuantizedLayer(number, layer, tensor, tensor.tables().reshape(-1).astype("<f2")))
    return found


def _obstacle(tensor: Tensor) -> str:
    """Why Klaus's layout cannot hold a tensor's codes and table; empty where it can."""
    if tensor.encoding != "palette":
        return f"its weight is {tensor.encoding}, no palette"
    message = tensor.message.palette
    if message.HasField("scales"):
        return "its palette has scales"
    if message.codes.vector != 1:
        return f"its palette is of vectors of {message.codes.vector}"
    if message.entries > QUANT_ENTRIES:
        return f"its table has {message.entries} entries, an 8-bit picture names {QUANT_ENTRIES}"
    tables = tensor.tables()
    if len(tables) != 1:
        return f"its palette has {len(tables)} tables"
    return "" if is_half(tables.reshape(-1)) else "its table holds values that binary16 does not"


def _say_float(number: int, layer: FullConnect, why: str, say: Say) -> None:
    say(f"layer {number} ({escape(layer.node)}) stays in the database as floats: {why}")
