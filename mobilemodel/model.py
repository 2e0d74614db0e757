"""What an importer returns: an ONNX graph, its tensors, and what is known about them.

A converter reads one source format and makes one ``Model``; everything after it works on this alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilemodel import dtypes
from mobilemodel.layout import elements_of
from mobilemodel.v1 import bundle_pb2 as pb

Buffer = bytes | bytearray | memoryview
GRAPH_LOCATION = "mobilemodel"
"""where a bundle's graph says that the values of its external initializers lie (spec/graph.md §3)"""


class Role(Enum):
    """What a tensor is to the network; schemes choose by it."""

    FC = "fc"
    CONV = "conv"
    RECURRENT = "recurrent"
    EMBEDDING = "embedding"
    OTHER = "other"


WEIGHT_ROLES = frozenset((Role.FC, Role.CONV, Role.RECURRENT, Role.EMBEDDING))


@dataclass(frozen=True)
class MatrixOrder:
    """How a weight becomes a matrix with one row for each output (spec/tensors.md §3.1); empty = as it is."""

    view: tuple[int, ...] = ()
    perm: tuple[int, ...] = ()
    row_axes: int = 1


@dataclass(frozen=True)
class QuantizedValue:
    """A value that its source already holds quantized: kept without requantizing.

    ``codes`` is rows x codes_per_row; ``encoding`` is a Palette or Affine message with view, perm, row_axes, vector,
    segment and groupings set.
    """

    encoding: pb.Palette | pb.Affine
    codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    tables: npt.NDArray[Any] | None = None
    scales: npt.NDArray[Any] | None = None
    zeros: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class SourceTensor:
    """A tensor that the graph refers to by name and that a bundle can hold outside of the graph.

    ``read`` returns its ONNX ``raw_data`` and may be called more than once; nothing is kept in between.
    """

    name: str
    dtype: int
    dims: tuple[int, ...]
    read: Callable[[], Buffer]
    role: Role = Role.OTHER
    operator: str = ""
    """type of the node that uses it as a weight: ``Gemm``"""
    order: MatrixOrder = MatrixOrder()
    rank_in_role: int = 0
    """position among the weights of its role, in the order of the graph; 0 is the first"""
    hoisted: bool = False
    """the value still lies in a Constant node or a subgraph: it moves only if a scheme wants it"""
    quantized: QuantizedValue | None = None

    @property
    def elements(self) -> int:
        return elements_of(self.dims)

    @property
    def raw_bytes(self) -> int:
        """Bytes of ``read()``."""
        return dtypes.raw_size(self.dtype, self.elements)


@dataclass(frozen=True)
class InlineTensor:
    """A tensor that stays inside the graph, value for value, and why."""

    name: str
    dtype: int
    dims: tuple[int, ...]
    raw_bytes: int
    reason: str
    role: Role = Role.OTHER
    operator: str = ""
    """type of the node that uses it as a weight, as of a SourceTensor"""


@dataclass(frozen=True)
class SourceFile:
    """One file that a model was read from; ``name`` has no folder."""

    format: str
    name: str
    sha256: bytes
    path: Path | None = None
    """where it is on this machine, so that it is not overwritten; never recorded"""


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say of a source beside its files; a converter names the fields that it takes in ``options``."""

    topology: str = ""
    """``--topology``: which network it is, where the files do not tell"""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """``--png LAYER=FILE``: picture files that hold the codes of a layer"""
    input_shape: tuple[int | None, ...] = ()
    """``--input-shape``: sizes of the input's axes, N C H W; None: any"""


NO_OPTIONS = SourceOptions()


@dataclass(frozen=True)
class Model:
    """One network as an importer understood it."""

    build_graph: Callable[[frozenset[str]], bytes]
    """serialise the graph; the given hoisted tensors have moved out of it, all others are where they were"""
    tensors: tuple[SourceTensor, ...]
    inline: tuple[InlineTensor, ...] = ()
    inputs: tuple[pb.ValueInfo, ...] = ()
    outputs: tuple[pb.ValueInfo, ...] = ()
    sources: tuple[SourceFile, ...] = ()
    preprocessing: tuple[pb.Preprocessing, ...] = ()
    mean_picture: bytes = b""
    """float32, height x width x channels: the mean picture of the last of ``preprocessing``, which has its size"""
    labels: tuple[str, ...] = ()
    licence: str = ""
    description: str = ""
    notes: tuple[str, ...] = ()
    """what the user should know about the import, one sentence each"""
    close: Callable[[], None] = lambda: None
    """let go of the source files"""
