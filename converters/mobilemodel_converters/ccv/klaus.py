"""Klaus's layout: the codes of a full connect in a PNG beside the database, its codebook in the table ``layer_quant``.

A pixel is an index into the codebook: height = outputs, width = inputs, and the columns of the first full connect are
rows x columns x channels of the picture before it. Codes and codebook become a palette as they are. Source: Klaus's
loader, and the two pictures of its ImageNet model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobilemodel.errors import MalformedSourceError, MobileModelError, UnsupportedSourceError, UsageError, escape
from mobilemodel.model import QuantizedValue, SourceFile
from mobilemodel_converters.ccv import schema
from mobilemodel_converters.ccv.database import Blob, Database
from mobilemodel_converters.ccv.layers import MOST_LAYERS, Layer, integer
from mobilemodel_converters.ccv.png import Picture, read_picture
from mobilemodel_converters.quantized import palette_value
from mobilemodel_converters.sources import OpenedFile

SOURCE_FORMAT = "klaus png"
Codes = npt.NDArray[np.uint8]
Codebook = npt.NDArray[np.float16]


def read_codebooks(database: Database) -> dict[int, Codebook]:
    """The codebook of each layer that has one: binary16 values, as many as the BLOB holds.

    Raises MalformedSourceError for what is no list of 1 to 256 finite values.
    """
    if schema.LAYER_QUANT not in database.tables:
        return {}
    database.columns(schema.LAYER_QUANT, ("layer", "quant"))
    found: dict[int, Codebook] = {}
    for row in database.rows(schema.LAYER_QUANT, ("layer", "quant"), MOST_LAYERS):
        number = integer(row, "layer")
        name, blob = schema.layer_name(number), row["quant"]
        if number in found:
            raise MalformedSourceError(f"two rows of the table {schema.LAYER_QUANT}", layer=name)
        most = 2 * schema.QUANT_ENTRIES
        if not isinstance(blob, Blob) or blob.size % 2 or not 0 < blob.size <= most:
            size = f"{blob.size} bytes" if isinstance(blob, Blob) else "no BLOB"
            raise MalformedSourceError("a codebook is binary16 values", layer=name, found=size,
                                       expected=f"2 to {most} bytes, two for each entry")  # fmt: skip
        found[number] = np.frombuffer(database.read(blob), "<f2")
        if not np.isfinite(found[number]).all():
            entry = int(np.flatnonzero(~np.isfinite(found[number]))[0])
            raise MalformedSourceError("a codebook holds a value that is not finite", layer=name,
                                       found=f"{found[number][entry]} at entry {entry}")  # fmt: skip
    return found


def named_pictures(options: Mapping[str, str]) -> dict[int, Path]:
    """The pictures of ``--png LAYER=FILE`` by layer number; ``11`` and ``layer-11`` name the same layer.

    Raises UsageError for another name, or a layer that is named twice.

    >>> named_pictures({"layer-11": "codes.png"})
    {11: PosixPath('codes.png')}
    """
    found: dict[int, Path] = {}
    for key, path in options.items():
        digits = key.removeprefix("layer-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
            raise UsageError("--png names no layer", expected="LAYER=FILE with a layer's number, 11=codes.png",
                             found=escape(key))  # fmt: skip
        if int(digits) in found:
            raise UsageError(f"--png names layer {int(digits)} twice")
        found[int(digits)] = Path(path)
    return found


def find_picture(folder: Path, layer: int) -> Path | None:
    """The picture of a layer beside the database, or None.

    Raises UnsupportedSourceError where there are two, or where it is a link that leaves the folder.
    """
    found = [folder / name for name in schema.picture_names(layer) if os.path.lexists(folder / name)]
    if not found:
        return None
    if len(found) > 1:
        raise UnsupportedSourceError("two pictures of one layer", found=" and ".join(path.name for path in found),
                                     advice=f"Name the one that is meant: --png {layer}=FILE.")  # fmt: skip
    inside = Path(os.path.realpath(found[0])).is_relative_to(os.path.realpath(folder))
    if not inside:
        raise UnsupportedSourceError("a picture that is a link out of the database's folder", found=found[0].name,
                                     advice=f"Name it if it is meant: --png {layer}=FILE.")  # fmt: skip
    return found[0]


def read_weight(layer: Layer, codebook: Codebook, path: Path) -> tuple[QuantizedValue, SourceFile]:
    """The weight of a full connect from its picture: the same indices, the same codebook; and the picture's record.

    Raises MalformedSourceError, naming the picture, for a broken one, one of another size than the layer, or indices
    that the codebook does not have; UnsupportedSourceError; UsageError where it cannot be opened.
    """
    outputs, rows, cols, channels = layer.weight_shape
    inputs = layer.input.values
    with OpenedFile(path) as file:
        try:
            codes, table = indices(read_picture(file, outputs, inputs), codebook)
        except MobileModelError as error:
            raise error.within(file=str(path)) from None
        source = file.record(SOURCE_FORMAT)
    tables, dims = table.reshape(1, -1, 1), (outputs, inputs)
    if not layer.flattens:
        return palette_value(codes, tables, dims), source
    return palette_value(codes, tables, dims, view=(outputs, channels, rows, cols), perm=(0, 2, 3, 1)), source


def look_up(value: QuantizedValue) -> npt.NDArray[np.float32]:
    """The values of a weight that came from a picture, as its pixels lie."""
    return np.asarray(value.tables, "<f4").reshape(-1)[value.codes]


def indices(picture: Picture, codebook: Codebook) -> tuple[Codes, Codebook]:
    """The indices of a picture and the entries that they name.

    A sample is an index. But some loaders spread the samples of fewer bits over 0 to 255 (times 17 for 4 bits), and
    either side may be stored for them: a codebook of 256 entries under a grey picture of fewer bits has its values at
    the spread indices, and a picture of 8 bits may hold spread samples of a codebook of 16 entries.

    Raises MalformedSourceError where samples and codebook do not fit.
    """
    samples, entries = picture.samples, codebook.size
    levels = 1 << picture.depth
    largest = int(samples.max())
    if picture.depth < 8 and not picture.indexed and entries == schema.QUANT_ENTRIES:
        return samples, np.ascontiguousarray(codebook[:: 255 // (levels - 1)])
    if largest < entries:
        return samples, codebook
    if picture.depth == 8 and entries in (2, 4, 16):
        step = 255 // (entries - 1)
        if not (samples % step).any():
            return samples // np.uint8(step), codebook
    raise MalformedSourceError("the picture names an entry that the codebook does not have",
                               expected=f"indices below {entries}", found=largest)  # fmt: skip
