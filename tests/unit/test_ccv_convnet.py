"""ccv convnets: each layer's arithmetic against plain numpy, all generations of the tables, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import LimitExceededError, MalformedSourceError, UnsupportedSourceError
from mobilemodel.model import Role
from mobilemodel.v1 import bundle_pb2 as pb
from mobilemodel_converters.ccv.schema import LAYER_COLUMNS, LayerType
from tests.ccv_databases import GENERATIONS, Convnet, Row, activations, change, error_of, load

Floats = npt.NDArray[np.float64]


def reference(net: Convnet, x: npt.NDArray[np.float32]) -> list[Floats]:
    """Each layer's output as the format's facts define it, value by value, rows x columns x channels."""
    out = []
    value = x.astype(np.float64)
    for row in net.rows:
        value = _layer(row, value)
        out.append(value)
    return out


def _layer(row: Row, x: Floats) -> Floats:
    kind, c = row.columns["type"], row.columns
    if kind == LayerType.FULL_CONNECT:
        assert row.weight is not None
        assert row.bias is not None
        made = row.weight.astype(np.float64) @ x.reshape(-1) + row.bias  # row-major: rows, columns, channels
        return np.maximum(made, 0) if c["output_relu"] else made
    if kind == LayerType.LOCAL_RESPONSE_NORM:
        return _norm(c, x)
    if kind == LayerType.CONVOLUTIONAL:
        return _conv(row, x)
    return _pool(c, x, np.max if kind == LayerType.MAX_POOL else np.mean)


def _norm(c: dict[str, float], x: Floats) -> Floats:
    channels, partition, half = x.shape[2], int(c["input_matrix_partition"]), int(c["output_size"]) // 2
    size = channels // partition
    out = np.empty_like(x)
    for k in range(channels):
        first = k // size * size
        window = x[:, :, max(k - half, first) : min(k + half + 1, first + size)]
        out[:, :, k] = (
            x[:, :, k] * (c["output_kappa"] + c["output_alpha"] * (window**2).sum(axis=2)) ** -c["output_beta"]
        )
    return out


def _conv(row: Row, x: Floats) -> Floats:
    c, weight, bias = row.columns, row.weight, row.bias
    assert weight is not None
    assert bias is not None
    border, strides, groups = c["output_border"], c["output_strides"], c["input_matrix_partition"]
    padded = np.pad(x, ((border, border), (border, border), (0, 0)))
    count, height, width, depth = weight.shape
    rows, cols = ((n - k) // strides + 1 for n, k in zip(padded.shape[:2], (height, width), strict=True))
    out = np.empty((rows, cols, count))
    for k in range(count):
        first = k // (count // groups) * depth
        for i in range(rows):
            for j in range(cols):
                patch = padded[i * strides : i * strides + height, j * strides : j * strides + width]
                out[i, j, k] = (patch[:, :, first : first + depth] * weight[k]).sum() + bias[k]
    return np.maximum(out, 0)


def _pool(c: dict[str, int], x: Floats, reduce: object) -> Floats:
    window, strides, border = c["output_size"], c["output_strides"], c["output_border"]
    rows, cols = ((n + 2 * border - window) // strides + 1 for n in x.shape[:2])
    out = np.empty((rows, cols, x.shape[2]))
    for i in range(rows):
        for j in range(cols):
            top, left = i * strides - border, j * strides - border
            real = x[max(top, 0) : top + window, max(left, 0) : left + window]  # padding does not count
            out[i, j] = reduce(real, axis=(0, 1))  # type: ignore[operator]
    return out


def check(net: Convnet, folder: Path) -> None:
    """The converted net computes what the reference does, layer by layer."""
    x = np.random.default_rng(3).standard_normal(net.input).astype("f4")
    path = folder / "net.sqlite3"
    path.unlink(missing_ok=True)
    model = load(net.write(path))
    found = activations(model, x)
    model.close()
    for number, expected in enumerate(reference(net, x)):
        np.testing.assert_allclose(found[f"layer-{number}"], expected, rtol=1e-4, atol=1e-5)


@st.composite
def slid(draw: st.DrawFn, odd: bool) -> tuple[int, int, int, int, int]:
    """Rows and columns of an input, and a window, strides and border that end with it."""
    window = draw(st.sampled_from((1, 3, 5) if odd else (1, 2, 3, 4)))
    strides, border = draw(st.integers(1, 3)), draw(st.integers(0, 2 if odd else window - 1))
    sides = [(draw(st.integers(0, 3)) * strides + window - 2 * border) for _ in range(2)]
    sides = [side + strides * max(0, -(-(1 - side) // strides)) for side in sides]
    return sides[0], sides[1], window, strides, border


@given(slid(odd=True), st.integers(1, 3), st.sampled_from((1, 2, 3)), st.integers(1, 2))
def test_convolutions(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], depth: int, groups: int, filters: int
) -> None:
    """Groups are the row's input partition; every convolution is followed by ReLU; kernels are not flipped."""
    rows, cols, window, strides, border = shape
    net = Convnet((rows, cols, depth * groups)).conv(filters * groups, (window, window), strides, border, groups)
    check(net, tmp_path_factory.mktemp("conv"))


@given(slid(odd=False), st.sampled_from((LayerType.MAX_POOL, LayerType.AVERAGE_POOL)))
def test_pools(tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], kind: LayerType) -> None:
    """Padding never wins a maximum, and does not count in an average."""
    rows, cols, window, strides, border = shape
    check(Convnet((rows, cols, 2)).pool(kind, window, strides, border), tmp_path_factory.mktemp("pool"))


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.floats(0.01, 2.0))
def test_normalisations(
    tmp_path_factory: pytest.TempPathFactory, window: int, partition: int, depth: int, alpha: float
) -> None:
    """The window is 2 (size / 2) + 1 channels, clipped to the partition; alpha is not divided by it."""
    net = Convnet((2, 3, partition * depth)).norm(window, partition, alpha=alpha)
    check(net, tmp_path_factory.mktemp("norm"))


def toy(seed: int = 7) -> Convnet:
    """Every layer type, groups and partitions, unequal sides."""
    net = Convnet((11, 17, 3), np.random.default_rng(seed))
    net.conv(8, (3, 5)).norm(partition=2).pool(LayerType.MAX_POOL, 3, 2).conv(12, strides=2, border=0, partition=2)
    return net.pool(LayerType.AVERAGE_POOL, 2, 1, 1).full(10, relu=True).full(6, relu=True).full(5)


def test_a_whole_network(tmp_path: Path) -> None:
    check(toy(), tmp_path)


def test_outputs_are_probabilities(tmp_path: Path) -> None:
    model = load(toy().write(tmp_path / "net.sqlite3"))
    found = activations(model, np.ones((11, 17, 3), "f4"))
    expected = np.exp(found["layer-7"] - found["layer-7"].max())
    np.testing.assert_allclose(found["output"], expected / expected.sum(), rtol=1e-5)
    assert [value.name for value in model.outputs] == ["output"]
    dims = model.inputs[0].shape.dimensions
    assert [dims[0].symbol, *(d.size for d in dims[1:])] == ["N", 3, 11, 17]


def test_a_last_layer_that_is_no_classifier_gets_no_softmax(tmp_path: Path) -> None:
    model = load(Convnet((4, 4, 3)).conv(4).write(tmp_path / "net.sqlite3"))
    assert [value.name for value in model.outputs] == ["layer-0"]
    assert any("no softmax" in note for note in model.notes)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_all_generations(generation: str, tmp_path: Path) -> None:
    net = toy()
    if generation < "2014-03-02":
        net = Convnet((9, 13, 3)).conv(8).pool(LayerType.MAX_POOL, 3, 2).full(6, relu=True).full(5)
    model = load(net.write(tmp_path / "net.sqlite3", generation=generation))
    x = np.random.default_rng(1).standard_normal(net.input).astype("f4")
    found = activations(model, x)
    for number, expected in enumerate(reference(net, x)):
        np.testing.assert_allclose(found[f"layer-{number}"], expected, rtol=1e-4, atol=1e-5)
    assert any("ReLU is assumed" in note for note in model.notes) == (generation < "2014-03-17")
    assert (not model.preprocessing) == (generation < "2014-02-16")


def test_half_precision_is_of_the_row(tmp_path: Path) -> None:
    net = toy()
    model = load(net.write(tmp_path / "net.sqlite3", half=(0, 6)))
    values = {tensor.name: np.frombuffer(tensor.read(), "<f4") for tensor in model.tensors}
    for number in (0, 3, 5, 6, 7):
        weight, bias = net.rows[number].weight, net.rows[number].bias
        assert weight is not None
        assert bias is not None
        kind = "<f2" if number in (0, 6) else "<f4"
        assert np.array_equal(np.sort(values[f"layer-{number}.weight"]), np.sort(weight.astype(kind).reshape(-1)))
        assert np.array_equal(values[f"layer-{number}.bias"], bias.astype(kind))


def test_roles_and_names(tmp_path: Path) -> None:
    model = load(toy().write(tmp_path / "net.sqlite3"))
    weights = {t.name: (t.role, t.rank_in_role, t.dims) for t in model.tensors if t.name.endswith("weight")}
    assert weights["layer-3.weight"] == (Role.CONV, 1, (12, 4, 3, 3))
    assert weights["layer-5.weight"] == (Role.FC, 0, (10, 12 * 3 * 4))
    assert weights["layer-7.weight"] == (Role.FC, 2, (5, 6))
    assert [(source.format, source.name) for source in model.sources] == [("ccv", "net.sqlite3")]


# Preprocessing.


def test_the_mean_picture_has_the_resized_size(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).uniform(0, 255, (12, 12, 3)).astype("<f4")
    net = Convnet((9, 7, 3)).conv(4)
    model = load(net.write(tmp_path / "net.sqlite3", picture=(12, 12), mean=mean.tobytes()))
    (step,) = model.preprocessing
    assert (step.resize.mode, step.resize.height, step.resize.kernel) == (
        pb.Resize.MODE_SHORT, 12, pb.Resize.KERNEL_AREA,
    )  # fmt: skip
    assert (step.crop_height, step.crop_width, step.colour_order) == (9, 7, pb.COLOUR_ORDER_RGB)
    assert (step.mean_picture.height, step.mean_picture.width) == (12, 12)
    assert model.mean_picture == mean.tobytes()


def test_one_centre_crop_is_ccvs_two(tmp_path: Path) -> None:
    """Centre input_height x input_width, minus the mean, then the centre of the network's size."""
    from mobilemodel.runtime.picture import prepare

    generator = np.random.default_rng(0)
    mean = generator.uniform(0, 255, (13, 13, 3)).astype("<f4")
    model = load(Convnet((9, 9, 3)).conv(4).write(tmp_path / "n.sqlite3", picture=(13, 13), mean=mean.tobytes()))
    for width in (13, 14, 17, 20):
        picture = generator.integers(0, 256, (13, width, 3), np.uint8)
        left = (width - 13) // 2
        expected = (picture[:, left : left + 13].astype("f4") - mean)[2:11, 2:11]
        found = prepare(picture, model.preprocessing[0], mean)
        assert np.array_equal(found[0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("picture", "mean", "expected"),
    [
        ((12, 12), bytes(40), "the mean picture is left out"),
        ((12, 12), None, "the mean picture is left out"),
        ((12, 14), None, "whatever their aspect"),
        ((3, 12), None, "smaller than the network's input"),
    ],
)
def test_what_a_note_says_of_pictures(
    picture: tuple[int, int], mean: bytes | None, expected: str, tmp_path: Path
) -> None:
    model = load(Convnet((9, 9, 3)).conv(4).write(tmp_path / "net.sqlite3", picture=picture, mean=mean))
    assert any(expected in note for note in model.notes)
    assert model.mean_picture == b""
    assert not any(step.HasField("mean_picture") for step in model.preprocessing)


def test_a_mean_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    mean = np.full((9, 9, 3), np.nan, "<f4").tobytes()
    with pytest.raises(MalformedSourceError, match="not finite"):
        load(Convnet((9, 9, 3)).conv(4).write(tmp_path / "net.sqlite3", mean=mean))


def test_the_trainers_tables_are_left_out(tmp_path: Path) -> None:
    path = Convnet((9, 9, 3)).conv(4).write(tmp_path / "net.sqlite3")
    change(path, "CREATE TABLE momentum_data (layer INTEGER PRIMARY KEY, weight BLOB, bias BLOB)")
    assert any("momentum_data" in note for note in load(path).notes)


# What is refused: the error names the file, the layer and what was expected.

_SET = "UPDATE layer_params SET "
_CASES = {
    "a stride that does not end": (f"{_SET} output_strides = 3 WHERE layer = 3", "layer-3", "multiple of 3"),
    "a kernel larger than its input": (f"{_SET} output_rows = 99 WHERE layer = 0", "layer-0", "multiple"),
    "an even kernel": (f"{_SET} output_rows = 2, output_cols = 2 WHERE layer = 0", "layer-0", "even size"),
    "strides of 0": (f"{_SET} output_strides = 0 WHERE layer = 2", "layer-2", "output_strides"),
    "strides NULL": (f"{_SET} output_strides = NULL WHERE layer = 2", "layer-2", "output_strides"),
    "a negative border": (f"{_SET} output_border = -1 WHERE layer = 0", "layer-0", "output_border"),
    "a border beyond the window": (f"{_SET} output_border = 3 WHERE layer = 2", "layer-2", "border alone"),
    "a size that does not follow": (f"{_SET} input_matrix_rows = 8 WHERE layer = 1", "layer-1", "layer-0's output"),
    "a huge size": (f"{_SET} input_matrix_rows = 1 << 60 WHERE layer = 0", "layer-0", "input_matrix_rows"),
    "an input beyond the format": (
        f"{_SET} input_matrix_rows = 2000000000, input_matrix_cols = 9 WHERE layer = 0", "layer-0", "at most",
    ),
    "text": (f"{_SET} output_count = 'many' WHERE layer = 0", "layer-0", "found text"),
    "a BLOB": (f"{_SET} output_count = x'00' WHERE layer = 0", "layer-0", "found a BLOB"),
    "long text": (f"{_SET} output_count = printf('%5000c', 'a') WHERE layer = 0", "layer-0", "long text"),
    "half a filter": (f"{_SET} output_count = 3.5 WHERE layer = 0", "layer-0", "3.5"),
    "an infinite number": (f"{_SET} output_alpha = 1e999 WHERE layer = 1", "layer-1", "output_alpha"),
    "groups that do not divide": (f"{_SET} input_matrix_partition = 3 WHERE layer = 3", "layer-3", "divide"),
    "channels of another kernel": (f"{_SET} output_channels = 4 WHERE layer = 3", "layer-3", "output_channels"),
    "an unknown type": (f"{_SET} type = 9 WHERE layer = 2", "layer-2", "unknown type"),
    "a pool after a full connect": (f"{_SET} type = 3 WHERE layer = 6", "layer-6", "after a full connect"),
    "inputs that are no product": (f"{_SET} input_node_count = 7 WHERE layer = 5", "layer-5", "input_node_count"),
    "a missing layer": ("DELETE FROM layer_params WHERE layer = 2", None, "one by one"),
    "no layers": ("DELETE FROM layer_params", None, "no rows"),
    "a missing weight": ("UPDATE layer_data SET weight = NULL WHERE layer = 5", "layer-5", "weight is missing"),
    "a missing bias": ("UPDATE layer_data SET bias = NULL WHERE layer = 5", "layer-5", "bias is missing"),
    "a short weight": ("UPDATE layer_data SET weight = x'00' WHERE layer = 0", "layer-0", "found 1 bytes"),
    "a missing row": ("DELETE FROM layer_data WHERE layer = 3", "layer-3", "weight is missing"),
    "a weight of text": ("UPDATE layer_data SET weight = 'w' WHERE layer = 0", "layer-0", "no BLOB"),
    "halves that are floats": ("UPDATE layer_data SET half_precision = 1 WHERE layer = 7", "layer-7", "half"),
    "no table of data": ("DROP TABLE layer_data", None, "no table layer_data"),
    "a column less": ("ALTER TABLE layer_params DROP COLUMN output_border", None, "output_border"),
}  # fmt: skip


@pytest.mark.parametrize("case", _CASES)
def test_a_file_that_contradicts_itself_is_refused(case: str, tmp_path: Path) -> None:
    statement, layer, expected = _CASES[case]
    path = change(toy().write(tmp_path / "net.sqlite3"), statement)
    with pytest.raises((MalformedSourceError, UnsupportedSourceError, LimitExceededError), match=expected) as caught:
        load(path)
    assert caught.value.layer == layer
    assert caught.value.file == str(path)


def test_zeros_are_named_as_what_ccv_would_take(tmp_path: Path) -> None:
    path = change(toy().write(tmp_path / "net.sqlite3"), "UPDATE layer_data SET weight = NULL WHERE layer = 6")
    with pytest.raises(MalformedSourceError, match="ccv itself would take zeros"):
        load(path)


def test_duplicate_layers_are_refused(tmp_path: Path) -> None:
    path = toy().write(tmp_path / "net.sqlite3")
    change(path, "ALTER TABLE layer_params RENAME TO old", "CREATE TABLE layer_params AS SELECT * FROM old",
           "INSERT INTO layer_params SELECT * FROM old WHERE layer = 3")  # fmt: skip
    with pytest.raises(MalformedSourceError, match="one by one"):
        load(path)


def test_thousands_of_layers_are_refused(tmp_path: Path) -> None:
    path = Convnet((4, 4, 4)).norm().write(tmp_path / "net.sqlite3")
    change(path, "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
                 "INSERT INTO layer_params (layer, type) SELECT i, 5 FROM n")  # fmt: skip
    with pytest.raises(LimitExceededError, match="at most 1000"):
        load(path)


@given(st.lists(st.sampled_from((None, 0, 1, 2, 3, 5, 2**31 - 1, 2**40, -1, 1.5, "x", b"y")), min_size=18, max_size=18),
       st.integers(0, 7))  # fmt: skip
def test_any_values_in_a_row_end_in_our_errors(
    tmp_path_factory: pytest.TempPathFactory, values: list[object], layer: int
) -> None:
    path = toy().write(tmp_path_factory.mktemp("rows") / "net.sqlite3")
    kept = np.random.default_rng(layer).integers(0, 3, len(values)) > 0
    odd = zip(LAYER_COLUMNS[1:], values, kept, strict=True)
    change(path, *[(f"UPDATE layer_params SET {column} = ? WHERE layer = ?", (value, layer))
                   for column, value, keep in odd if not keep])  # fmt: skip
    error = error_of(lambda: load(path).close())
    assert error is None or error.file == str(path)
