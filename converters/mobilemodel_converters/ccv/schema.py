"""The tables of ccv's SQLite files: names, codes and the CREATE statements of the current generation.

Columns came one by one between 2014-01 and 2014-03; ``ADDED_COLUMNS`` says what a file without one means. Source:
ccv's convnet storage code; Klaus's loader for ``layer_quant``; nnc's tensor store for ``tensors``.
"""

from __future__ import annotations

from enum import IntEnum

LAYER_PARAMS = "layer_params"
CONVNET_PARAMS = "convnet_params"
LAYER_DATA = "layer_data"
LAYER_QUANT = "layer_quant"
"""Klaus: one codebook of binary16 values for each layer whose weight lies in a PNG"""
TENSORS = "tensors"
"""nnc: tensors by name, without a topology"""
CASCADE_PARAMS = "cascade_params"
"""a SURF cascade, which is no convnet"""
TRAINING_TABLES = ("function_state", "momentum_data", "conv_vary_params")
"""what the trainer's checkpoints carry beside a convnet"""

QUANT_ENTRIES = 256
"""entries of a ``layer_quant`` codebook at most: its indices are the bytes of a grey picture"""
_FEW_ENTRIES = 16
"""entries of a codebook whose picture is called one of 4 bits"""
LARGEST = 2**31 - 1
"""ccv reads the columns as integers of 32 bits"""


class LayerType(IntEnum):
    """The column ``type`` of ``layer_params``. Softmax, ReLU and flattening have no rows of their own."""

    CONVOLUTIONAL = 1
    FULL_CONNECT = 2
    MAX_POOL = 3
    AVERAGE_POOL = 4
    LOCAL_RESPONSE_NORM = 5


LAYER_TYPE_NAMES = {
    LayerType.CONVOLUTIONAL: "convolution",
    LayerType.FULL_CONNECT: "full connect",
    LayerType.MAX_POOL: "max pool",
    LayerType.AVERAGE_POOL: "average pool",
    LayerType.LOCAL_RESPONSE_NORM: "local response normalisation",
}

INTEGER_COLUMNS = (
    "layer", "type", "input_matrix_rows", "input_matrix_cols", "input_matrix_channels", "input_matrix_partition",
    "input_node_count", "output_rows", "output_cols", "output_channels", "output_partition", "output_count",
    "output_strides", "output_border", "output_size",
)  # fmt: skip
REAL_COLUMNS = ("output_kappa", "output_alpha", "output_beta")
RELU_COLUMN = "output_relu"
LAYER_COLUMNS = (*INTEGER_COLUMNS, *REAL_COLUMNS, RELU_COLUMN)
"""the columns of ``layer_params`` in their order"""
ADDED_COLUMNS = {"input_matrix_partition": 1, "output_partition": 1, RELU_COLUMN: None}
"""columns of ``layer_params`` that older files lack, and what they then stand for; None: nothing says it"""

CREATE_LAYER_PARAMS = (
    f"CREATE TABLE {LAYER_PARAMS} (layer INTEGER PRIMARY KEY ASC, "
    + ", ".join(f"{column} INTEGER" for column in INTEGER_COLUMNS[1:])
    + "".join(f", {column} REAL" for column in REAL_COLUMNS)
    + f", {RELU_COLUMN} INTEGER)"
)
CREATE_CONVNET_PARAMS = (
    f"CREATE TABLE {CONVNET_PARAMS} "
    "(convnet INTEGER PRIMARY KEY ASC, input_height INTEGER, input_width INTEGER, mean_activity BLOB)"
)
CREATE_LAYER_DATA = (
    f"CREATE TABLE {LAYER_DATA} (layer INTEGER PRIMARY KEY ASC, weight BLOB, bias BLOB, half_precision INTEGER)"
)
CREATE_LAYER_QUANT = f"CREATE TABLE {LAYER_QUANT} (layer INTEGER PRIMARY KEY ASC, quant BLOB)"
CREATE_TENSORS = (
    f"CREATE TABLE {TENSORS} "
    "(name TEXT PRIMARY KEY, type INTEGER, format INTEGER, datatype INTEGER, dim BLOB, data BLOB)"
)


def layer_name(layer: int) -> str:
    """What the output of a layer is called in the graph; its weight is ``layer-11.weight``.

    >>> layer_name(11)
    'layer-11'
    """
    return f"layer-{layer}"


def picture_names(layer: int) -> tuple[str, ...]:
    """The file names under which Klaus's picture of a layer is looked for: ``layer-10-4bit.png``, ``layer-11.png``.

    >>> picture_names(11)[:2]
    ('layer-11.png', 'layer-11-1bit.png')
    """
    return (f"layer-{layer}.png", *(f"layer-{layer}-{bits}bit.png" for bits in range(1, 9)))


def picture_name(layer: int, entries: int) -> str:
    """The one of these names under which codes of a codebook of ``entries`` are written.

    >>> picture_name(10, 16), picture_name(11, 256)
    ('layer-10-4bit.png', 'layer-11.png')
    """
    return f"layer-{layer}-4bit.png" if entries <= _FEW_ENTRIES else f"layer-{layer}.png"
