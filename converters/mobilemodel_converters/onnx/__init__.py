"""ONNX models in and out: any operator, opset and domain.

``file`` reads the file without its weights, ``structure`` checks the graph, ``uses`` says which tensors may leave it,
``roles`` what they are to the network, ``tensors`` reads values, ``build`` writes graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobilemodel.errors import MalformedSourceError, MobileModelError, UsageError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions
from mobilemodel.wire import fields, read_varint

_HEAD = 4096
"""bytes that tell a model: enough for a producer name and a doc string before the graph"""


class OnnxConverter:
    """The converter ``onnx``: one ``.onnx`` file, with external data in its folder where it has some."""

    name = "onnx"
    description = "ONNX: any operator, opset and domain; external data within the model's folder"
    suffixes = (".onnx",)
    options: tuple[str, ...] = ()

    def sniff(self, paths: Sequence[Path]) -> bool:
        """Whether the one file begins like a serialised ModelProto: its fields, and an ir_version or a graph first."""
        if len(paths) != 1 or not paths[0].is_file():
            return False
        with paths[0].open("rb") as file:
            head = file.read(_HEAD)
            size = paths[0].stat().st_size
        return _looks_like_model(head, size)

    def load(self, paths: Sequence[Path], options: SourceOptions = NO_OPTIONS) -> Model:  # noqa: ARG002 - it takes none
        """Read an ONNX model; its large values stay in the file until they are asked for.

        Raises MalformedSourceError for what is no valid model, UnsupportedSourceError for external data outside of
        the model's folder, UsageError for more than one file.
        """
        from mobilemodel_converters.onnx.importer import load_model

        if len(paths) != 1:
            raise UsageError("an ONNX model is one file", found=f"{len(paths)} files")
        try:
            return load_model(paths[0])
        except MobileModelError as error:
            raise error.within(file=str(paths[0])) from None
        except RecursionError:
            raise MalformedSourceError("graphs are nested too deep", file=str(paths[0])) from None
        except UnicodeDecodeError:
            raise MalformedSourceError("a name in the model is not UTF-8", file=str(paths[0])) from None


def _looks_like_model(head: bytes, size: int) -> bool:
    """ModelProto: ir_version is field 1 (a small number), the graph field 7; strings and opsets between them.

    A model of another format may share some field numbers: one of the two must be seen.
    """
    kinds = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
    seen, position = False, 0
    try:
        for field in fields(head, 0, len(head), shortest=False):
            if kinds.get(field.number) != field.wire_type or (field.number == 1 and not 0 < field.value < 1000):
                return False
            seen, position = seen or field.number in (1, 7, 8), field.end
    except MobileModelError:
        # The head of a longer file ends within a field: only the start of that field can be judged.
        number, wire_type = divmod(_key(head[position:]), 8)
        return size > len(head) and kinds.get(number) == wire_type and (seen or number in (7, 8))
    return seen


def _key(head: bytes) -> int:
    """Field number and wire type that a field begins with; 0 where they are cut off."""
    try:
        return read_varint(head, 0, len(head), shortest=False)[0]
    except MobileModelError:
        return 0
