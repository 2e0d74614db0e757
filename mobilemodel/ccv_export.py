"""Bundle -> a ccv database, and in Klaus's layout the codes of its full connects as pictures beside it.

Every value is kept bit for bit; what ccv has no place for is said.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.bundle import Bundle, Tensor
from mobilemodel.codecs import png
from mobilemodel.encodings.matrix import from_matrix
from mobilemodel.errors import (
    LimitExceededError,
    MalformedContentError,
    OutputError,
    OutputExistsError,
    UnsupportedSourceError,
    UsageError,
    escape,
)
from mobilemodel.files import OutputFile, same_file
from mobilemodel.layout import MatrixShape, tensor_layout
from mobilemodel.limits import FORMAT_LIMITS
from mobilemodel.v1 import bundle_pb2 as pb

if TYPE_CHECKING:
    import onnx

    from mobilemodel_converters.ccv.expression import Convnet
    from mobilemodel_converters.ccv.graph import Constant
    from mobilemodel_converters.ccv.rows import FullConnect
    from mobilemodel_converters.ccv.writer import Picture

Say = Callable[[str], None]
_MOST_ENTRIES = 256
_FEW_ENTRIES = 16


def export_ccv(bundle: Bundle, path: Path, *, force: bool, klaus: bool, say: Say) -> list[str]:
    """Write the database, with ``klaus`` the pictures beside it; return the paths, the database first.

    Nothing is at its place before everything is written. Raises UnsupportedSourceError naming the first node that ccv
    cannot express, MalformedContentError, LimitExceededError, OutputExistsError, OutputError.
    """
    from mobilemodel_converters.ccv.expression import express
    from mobilemodel_converters.ccv.writer import Content, write_database
    from mobilemodel_converters.onnx import build

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
        with _writing(path), _temporary_folder(database.folder) as folder:
            # SQLite opens files by their names, and an output has none before it is whole.
            write_database(folder / "convnet", content)
            with (folder / "convnet").open("rb") as file:
                shutil.copyfileobj(file, database.file, 1 << 20)
        outputs = [output for _, output in written]
        for output in (*outputs, database):
            output.commit()
    return [str(path), *(output.path for output in outputs)]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", file=str(path)) from None
    except OutputError as error:
        raise error.within(file=str(path)) from None


@contextmanager
def _temporary_folder(beside: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".mobilemodel-", dir=beside, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


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

    from mobilemodel_converters.onnx import build

    proto = constant.tensor
    if build.is_reference(proto):
        return _stored(bundle, proto).numpy()
    try:
        values: npt.NDArray[Any] = numpy_helper.to_array(proto)
    except Exception:  # onnx has no list of what a tensor that contradicts itself raises
        raise MalformedContentError("a tensor in the graph has another size than its dims", tensor=proto.name) from None
    return values


def _picture(bundle: Bundle, convnet: Convnet, say: Say) -> Picture:
    """The size of the pictures and their mean; without preprocessing the network's input, and no mean.

    Where there is no mean, ``mean_activity`` stays NULL: ccv then subtracts nothing, as from zeros, and a reader can
    tell that none was given.
    """
    from mobilemodel_converters.ccv.writer import Picture

    if bundle.manifest.HasField("labels"):
        say("a ccv database has no place for class names: they are not in it")
    size = convnet.input
    step = next((step for step in bundle.manifest.preprocessing if step.input == convnet.input_name), None)
    sides = (size.rows, size.cols)
    if step is None:
        say(f"no preprocessing in the bundle: ccv will resize pictures to {sides[0]} pixels and subtract nothing")
        return Picture(*sides, None)
    if step.HasField("resize"):
        sides = (step.resize.height, step.resize.width)
    mean: npt.NDArray[np.float32] | None = None
    if step.HasField("mean_picture"):
        mean = bundle.mean_picture(step)
        sides = (mean.shape[0], mean.shape[1])
    elif step.mean:
        mean = _even_picture(sides, step.mean, size.channels)
    if mean is not None and mean.shape[2] != size.channels:
        say(f"the mean has {mean.shape[2]} channels, the network's input {size.channels}: it is not in the database")
        mean = None
    _say_what_differs(step, sides, say)
    return Picture(*sides, mean)


def _even_picture(sides: tuple[int, int], values: Iterable[float], channels: int) -> npt.NDArray[np.float32]:
    """A mean of one value for each channel, or one for all, as the picture that ccv wants."""
    mean = np.array(list(values), np.float32)
    shape = (*sides, channels if len(mean) == 1 else len(mean))
    if 4 * int(np.prod(shape, dtype=object)) > FORMAT_LIMITS.mean:
        raise LimitExceededError("the mean as a picture", expected=f"at most {FORMAT_LIMITS.mean} bytes",
                                 found=" x ".join(map(str, shape)))  # fmt: skip
    return np.broadcast_to(mean, shape)


def _say_what_differs(step: pb.Preprocessing, sides: tuple[int, int], say: Say) -> None:
    """ccv's preprocessing is one: the shorter side to ``input_height``, red green blue, minus the mean."""
    if any(value != 1 for value in step.scale):
        say(f"ccv multiplies no pixel: the scale {', '.join(f'{value:.6g}' for value in step.scale)} is lost")
    if step.colour_order == pb.COLOUR_ORDER_BGR:
        say("ccv hands in red, green, blue: this network takes blue, green, red")
    resize = step.resize
    if resize.mode != pb.Resize.MODE_SHORT or (resize.height, resize.width) != sides:
        say(f"ccv resizes the shorter side to {sides[0]} pixels: the bundle's preprocessing says otherwise")


@dataclass(frozen=True)
class _QuantizedLayer:
    """A full connect whose weight is codes and one table, which Klaus's layout holds as they are."""

    number: int
    layer: FullConnect
    tensor: Tensor
    table: npt.NDArray[np.float16]

    def output(self, bundle: Bundle, database: Path, force: bool) -> OutputFile:
        """The picture beside the database, under Klaus's name for it."""
        from mobilemodel_converters.ccv.schema import picture_names

        few = len(self.table) <= _FEW_ENTRIES
        path = database.with_name(f"layer-{self.number}-4bit.png" if few else f"layer-{self.number}.png")
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
        with _writing(Path(output.path)):
            output.file.write(png.encode(rows.data.cast("B"), shape, thorough=False))
        return True


def _quantized_layers(bundle: Bundle, convnet: Convnet, say: Say) -> list[_QuantizedLayer]:
    """The full connects that can become pictures; the others are named with the reason."""
    from mobilemodel_converters.ccv.rows import FullConnect
    from mobilemodel_converters.onnx import build

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
    from mobilemodel_converters.ccv.writer import is_half

    if tensor.encoding != "palette":
        return f"its weight is {tensor.encoding}, no palette"
    message = tensor.message.palette
    if message.HasField("scales"):
        return "its palette has scales"
    if message.codes.vector != 1:
        return f"its palette is of vectors of {message.codes.vector}"
    if message.entries > _MOST_ENTRIES:
        return f"its table has {message.entries} entries, an 8-bit picture names {_MOST_ENTRIES}"
    tables = tensor.tables()
    if len(tables) != 1:
        return f"its palette has {len(tables)} tables"
    return "" if is_half(tables.reshape(-1)) else "its table holds values that binary16 does not"


def _say_float(number: int, layer: FullConnect, why: str, say: Say) -> None:
    say(f"layer {number} ({escape(layer.node)}) stays in the database as floats: {why}")
