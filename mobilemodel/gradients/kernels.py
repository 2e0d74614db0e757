"""Single operators on arrays, computed by ONNX Runtime: what would be slow in numpy, or depend on BLAS' threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mobilemodel.runtime.session import run, session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = npt.NDArray[Any]


class Kernels:
    """Runs one operator of the ONNX standard at a time, on one thread; sessions are kept for the next call.

    Weights are inputs, not constants of the session: ONNX Runtime keeps no copy of them.
    """

    def __init__(self) -> None:
        self._sessions: dict[tuple[object, ...], InferenceSession] = {}

    def run(self, operator: str, *inputs: Array | None, opset: int = 13, **attributes: Any) -> Array:
        """The first output of ``operator``; None is an optional input that is left out.

        >>> Kernels().run("Relu", np.array([-1, 2], np.float32))
        array([0., 2.], dtype=float32)

        Raises UnsupportedSourceError where ONNX Runtime lacks the operator, CheckFailedError where it refuses the
        inputs.
        """
        given = {f"x{number}": np.ascontiguousarray(x) for number, x in enumerate(inputs) if x is not None}
        types = tuple((name, array.dtype.str) for name, array in given.items())
        key = (operator, opset, types, *((name, _hashable(value)) for name, value in sorted(attributes.items())))
        if key not in self._sessions:
            names = [f"x{number}" if x is not None else "" for number, x in enumerate(inputs)]
            self._sessions[key] = session(_model(operator, names, given, opset, attributes))
        return run(self._sessions[key], given)["y"]


def _hashable(value: Any) -> object:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value


def _model(operator: str, names: list[str], given: dict[str, Array], opset: int, attributes: dict[str, Any]) -> bytes:
    from onnx import ValueInfoProto, helper

    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()]
    node = helper.make_node(operator, names, ["y"], **attributes)
    graph = helper.make_graph([node], "kernel", infos, [ValueInfoProto(name="y")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(made.SerializeToString())
