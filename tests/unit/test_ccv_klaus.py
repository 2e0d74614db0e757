"""Klaus's pictures: raw samples whatever their packing, the rules of indices, and which picture is taken."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilemodel.errors import (
    LimitExceededError,
    MalformedSourceError,
    MobileModelError,
    UnsupportedSourceError,
    UsageError,
)
from mobilemodel_converters.ccv import png
from mobilemodel_converters.ccv.klaus import indices, named_pictures
from mobilemodel_converters.ccv.png import Picture, read_picture
from mobilemodel_converters.sources import OpenedFile
from tests.ccv_databases import Convnet, activations, error_of, grey_png, load, peak_memory, png_chunk

Samples = npt.NDArray[np.uint8]
DEPTHS = (1, 2, 4, 8)


def drawn(depth: int, height: int, width: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(0, 1 << depth, (height, width), np.uint8)


def read(content: bytes, height: int, width: int, folder: Path) -> Picture:
    path = folder / "codes.png"
    path.write_bytes(content)
    with OpenedFile(path) as file:
        return read_picture(file, height, width)


# The reader of raw samples.


@given(
    st.sampled_from(DEPTHS), st.integers(1, 9), st.integers(1, 37),
    st.lists(st.integers(0, 4), min_size=1, max_size=5), st.integers(1, 4), st.booleans(), st.sampled_from((0, 3)),
)  # fmt: skip
def test_samples_are_what_their_bits_spell(
    tmp_path_factory: pytest.TempPathFactory, depth: int, height: int, width: int, filters: list[int], pieces: int,
    ancillary: bool, colour: int,
) -> None:  # fmt: skip
    samples = drawn(depth, height, width, height * width)
    content = grey_png(samples, depth, colour=colour, filters=filters, pieces=pieces, ancillary=ancillary)
    picture = read(content, height, width, tmp_path_factory.mktemp("png"))
    assert np.array_equal(picture.samples, samples)
    assert (picture.depth, picture.indexed) == (depth, colour == 3)


@pytest.mark.parametrize("depth", DEPTHS)
def test_pillow_agrees_but_for_its_scale(depth: int, tmp_path: Path) -> None:
    """Pillow spreads grey samples of fewer bits over 0 to 255: times 255, 85 and 17."""
    from PIL import Image

    samples = drawn(depth, 5, 11)
    picture = read(grey_png(samples, depth, filters=(0, 4, 1)), 5, 11, tmp_path)
    with Image.open(tmp_path / "codes.png") as image:
        seen = np.asarray(image.convert("L"))
    assert np.array_equal(picture.samples * (255 // ((1 << depth) - 1)), seen)


def refused(content: bytes, folder: Path, height: int = 4, width: int = 6) -> MobileModelError:
    with pytest.raises(MobileModelError) as caught:
        read(content, height, width, folder)
    return caught.value


def pieces_of(content: bytes) -> dict[str, tuple[int, int]]:
    """Where each chunk begins and ends."""
    found, at = {}, 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        found[kind.decode()] = (at, at + 12 + length)
        at += 12 + length
    return found


def test_what_is_no_plain_picture_is_refused(tmp_path: Path) -> None:
    samples = drawn(8, 4, 6)
    good = grey_png(samples)
    parts = pieces_of(good)
    start, end = parts["IDAT"]
    assert "not a PNG" in str(refused(b"GIF89a" + good[6:], tmp_path))
    for colour, name in ((2, "red"), (4, "grey and alpha"), (6, "alpha")):
        error = refused(grey_png(samples, colour=colour), tmp_path)
        assert isinstance(error, UnsupportedSourceError)
        assert name in str(error)
    assert "interlaced" in str(refused(grey_png(samples, interlace=1), tmp_path))
    assert "16 bits" in str(refused(good[:24] + b"\x10" + good[25:29] + _crc(good[12:24] + b"\x10" + good[25:29])
                                    + good[33:], tmp_path))  # fmt: skip
    assert "CRC" in str(refused(good[: end - 1] + bytes([good[end - 1] ^ 1]) + good[end:], tmp_path))
    assert "ends before IEND" in str(refused(good[: parts["IEND"][0]], tmp_path))
    assert "follow IEND" in str(refused(good + b"\0", tmp_path))
    assert "starts with IHDR" in str(refused(good[:8] + good[parts["IDAT"][0] :], tmp_path))
    assert "not whole" in str(refused(good[:start] + good[end:], tmp_path))
    assert "critical chunk" in str(refused(good[:start] + png_chunk(b"HACK", b"") + good[start:], tmp_path))
    assert "another size" in str(refused(good, tmp_path, 6, 4))


def _crc(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


def test_a_picture_that_inflates_to_more_is_refused(tmp_path: Path) -> None:
    long = grey_png(drawn(8, 400, 6))
    short = grey_png(drawn(8, 4, 6))
    header = pieces_of(short)["IHDR"][1]
    for content, height in ((short[:header] + long[header:], 4), (long[:header] + short[header:], 400)):
        assert isinstance(refused(content, tmp_path, height, 6), MalformedSourceError)


def test_a_picture_that_inflates_to_more_takes_no_memory(tmp_path: Path) -> None:
    short = grey_png(drawn(8, 4, 6))
    start, end = pieces_of(short)["IDAT"]
    bomb = short[:start] + png_chunk(b"IDAT", zlib.compress(bytes(1 << 26))) + short[end:]
    assert peak_memory(lambda: refused(bomb, tmp_path)) < 1 << 20


def test_a_picture_of_too_many_samples_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "MOST_SAMPLES", 23)
    assert isinstance(refused(grey_png(drawn(8, 4, 6)), tmp_path), LimitExceededError)


def test_an_unknown_filter_is_refused(tmp_path: Path) -> None:
    samples = drawn(8, 4, 6)
    good = grey_png(samples)
    start, end = pieces_of(good)["IDAT"]
    rows = np.concatenate([np.full((4, 1), 5, np.uint8), samples], axis=1)
    assert "filter" in str(
        refused(good[:start] + png_chunk(b"IDAT", zlib.compress(rows.tobytes())) + good[end:], tmp_path)
    )


@given(st.data())
def test_damaged_pictures(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(grey_png(drawn(4, 4, 6), 4, filters=(4, 3), pieces=2, ancillary=True))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(0, len(content)))])
    error_of(lambda: read(damaged, 4, 6, tmp_path_factory.mktemp("damaged")))


# The rules of indices.


def table(entries: int) -> npt.NDArray[np.float16]:
    return np.linspace(-1, 1, entries).astype("<f2")


@pytest.mark.parametrize(
    ("depth", "indexed", "samples", "entries", "codes", "kept"),
    [
        (8, False, [0, 7, 255], 256, [0, 7, 255], range(256)),
        (8, False, [0, 7, 200], 201, [0, 7, 200], range(201)),
        (4, False, [0, 7, 15], 16, [0, 7, 15], range(16)),
        (4, False, [0, 7, 15], 256, [0, 7, 15], range(0, 256, 17)),
        (2, False, [0, 1, 3], 256, [0, 1, 3], (0, 85, 170, 255)),
        (1, False, [0, 1, 1], 256, [0, 1, 1], (0, 255)),
        (4, True, [0, 7, 15], 256, [0, 7, 15], range(256)),
        (8, False, [0, 17, 255], 16, [0, 1, 15], range(16)),
        (8, False, [0, 85, 255], 4, [0, 1, 3], range(4)),
        (8, False, [0, 1, 3], 4, [0, 1, 3], range(4)),
        (4, False, [0, 1, 2], 3, [0, 1, 2], range(3)),
    ],
)
def test_indices(
    depth: int, indexed: bool, samples: list[int], entries: int, codes: list[int], kept: range | tuple[int, ...]
) -> None:
    picture = Picture(np.array([samples], np.uint8), depth, indexed)
    found, codebook = indices(picture, table(entries))
    assert found.tolist() == [codes]
    assert np.array_equal(codebook, table(entries)[list(kept)])


@pytest.mark.parametrize(("depth", "samples", "entries"), [(8, [0, 18, 255], 16), (8, [0, 200], 200), (4, [0, 15], 15)])
def test_indices_without_an_entry_are_refused(depth: int, samples: list[int], entries: int) -> None:
    with pytest.raises(MalformedSourceError, match="does not have"):
        indices(Picture(np.array([samples], np.uint8), depth, indexed=False), table(entries))


# Which picture belongs to which layer.


def klaus(folder: Path, *, depth: int = 8, entries: int = 256) -> tuple[Convnet, dict[int, Samples]]:
    """A convnet whose full connects 1 and 2 are pictures: 3x4x2 -> 6 -> 5 -> 4, the last one in floats."""
    net = Convnet((3, 4, 3)).conv(2).full(6, relu=True).full(5, relu=True).full(4)
    codes = {1: drawn(depth, 6, 24), 2: drawn(depth, 5, 6)}
    codebooks = {number: (table(entries) * number).astype("<f2") for number in codes}
    for number, samples in codes.items():
        net.rows[number].weight = None
        (folder / f"layer-{number}.png").write_bytes(grey_png(samples, depth))
    net.write(folder / "net.sqlite3", codebooks=codebooks, half=(1, 2))
    for number, samples in codes.items():
        net.rows[number].weight = codebooks[number].astype("<f4")[samples]
    return net, codes


@pytest.mark.parametrize(("depth", "entries"), [(8, 256), (4, 16)])
def test_codes_and_codebook_come_through_as_they_are(depth: int, entries: int, tmp_path: Path) -> None:
    net, codes = klaus(tmp_path, depth=depth, entries=entries)
    model = load(tmp_path / "net.sqlite3")
    tensors = {tensor.name: tensor for tensor in model.tensors}
    for number, samples in codes.items():
        value = tensors[f"layer-{number}.weight"].quantized
        assert value is not None
        assert value.tables is not None
        assert np.array_equal(value.codes, samples)
        assert value.tables.dtype == np.float16
        assert np.array_equal(value.tables.reshape(-1), (table(entries) * number).astype("<f2"))
    assert tensors["layer-3.weight"].quantized is None
    first = tensors["layer-1.weight"].quantized
    assert first is not None
    assert list(first.encoding.codes.view) == [6, 2, 3, 4]
    assert list(first.encoding.codes.perm) == [0, 2, 3, 1]
    assert {source.name for source in model.sources} == {"net.sqlite3", "layer-1.png", "layer-2.png"}
    x = np.random.default_rng(5).standard_normal((3, 4, 3)).astype("f4")
    weight, bias = net.rows[1].weight, net.rows[1].bias
    assert weight is not None
    assert bias is not None
    found = activations(model, x)
    flat = found["layer-0"].reshape(-1)  # rows, columns, channels
    expected = np.maximum(weight @ flat + bias.astype("<f2").astype("f4"), 0)
    np.testing.assert_allclose(found["layer-1"], expected, rtol=1e-4, atol=1e-4)


def test_a_bundle_holds_the_pictures_samples(tmp_path: Path) -> None:
    import mobilemodel as mm

    _, codes = klaus(tmp_path)
    mm.convert(tmp_path / "net.sqlite3", tmp_path / "out.mm", scheme="mixed-4-8")
    with mm.open(tmp_path / "out.mm") as bundle:
        for number, samples in codes.items():
            tensor = bundle[f"layer-{number}.weight"]
            assert np.array_equal(tensor.indices(), samples)
            assert np.array_equal(tensor.tables().reshape(-1), (table(256) * number).astype("<f2"))


def test_a_picture_that_is_read_is_no_output(tmp_path: Path) -> None:
    """It was not named, and is the model's own all the same."""
    import mobilemodel as mm

    klaus(tmp_path)
    before = (tmp_path / "layer-1.png").read_bytes()
    with pytest.raises(UsageError, match="the output is the source"):
        mm.convert(tmp_path / "net.sqlite3", tmp_path / "layer-1.png", options=mm.ConvertOptions(force=True))
    assert (tmp_path / "layer-1.png").read_bytes() == before


def test_the_picture_may_say_its_bits(tmp_path: Path) -> None:
    klaus(tmp_path)
    (tmp_path / "layer-1.png").rename(tmp_path / "layer-1-4bit.png")
    load(tmp_path / "net.sqlite3").close()


def test_two_pictures_of_a_layer_are_refused(tmp_path: Path) -> None:
    _, codes = klaus(tmp_path)
    other = tmp_path / "layer-1-4bit.png"
    other.write_bytes((tmp_path / "layer-1.png").read_bytes())
    with pytest.raises(UnsupportedSourceError, match="two pictures of one layer"):
        load(tmp_path / "net.sqlite3")
    model = load(tmp_path / "net.sqlite3", layer_1=other)  # named, it is not looked for
    value = next(t for t in model.tensors if t.name == "layer-1.weight").quantized
    assert value is not None
    assert np.array_equal(value.codes, codes[1])


def test_a_missing_picture_names_what_is_looked_for(tmp_path: Path) -> None:
    klaus(tmp_path)
    (tmp_path / "layer-1.png").unlink()
    with pytest.raises(MalformedSourceError, match="weight is missing") as caught:
        load(tmp_path / "net.sqlite3")
    assert caught.value.layer == "layer-1"
    assert "layer-1.png" in str(caught.value)
    assert "--png 1=FILE" in str(caught.value)


def test_a_codebook_without_a_picture_leaves_the_databases_weight(tmp_path: Path) -> None:
    net = Convnet((2, 2, 3)).full(4, relu=True).full(2)
    model = load(net.write(tmp_path / "net.sqlite3", codebooks={0: table(16)}))
    assert any("no picture" in note for note in model.notes)
    assert model.tensors[0].quantized is None


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    klaus(tmp_path / "inside")
    (tmp_path / "inside" / "layer-1.png").rename(tmp_path / "codes.png")
    (tmp_path / "inside" / "layer-1.png").symlink_to(tmp_path / "codes.png")
    with pytest.raises(UnsupportedSourceError, match="link out of the database's folder"):
        load(tmp_path / "inside" / "net.sqlite3")
    load(tmp_path / "inside" / "net.sqlite3", layer_1=tmp_path / "codes.png").close()


def test_errors_name_the_picture_and_the_layer(tmp_path: Path) -> None:
    klaus(tmp_path)
    (tmp_path / "layer-2.png").write_bytes(grey_png(drawn(8, 6, 5)))
    with pytest.raises(MalformedSourceError, match=r"6 wide.*5 high") as caught:
        load(tmp_path / "net.sqlite3")
    assert caught.value.file == str(tmp_path / "layer-2.png")
    assert caught.value.layer == "layer-2"


def test_pictures_that_no_layer_wants(tmp_path: Path) -> None:
    klaus(tmp_path)
    for key in ("3", "0", "99"):
        with pytest.raises(UsageError, match="one of the layers that have one: 1, 2"):
            load(tmp_path / "net.sqlite3", **{key: "codes.png"})
    with pytest.raises(UsageError, match="names no layer"):
        named_pictures({"fc6": "codes.png"})
    with pytest.raises(UsageError, match="twice"):
        named_pictures({"layer-11": "a.png", "11": "b.png"})
    with pytest.raises(UsageError, match="cannot open"):
        load(tmp_path / "net.sqlite3", layer_1=tmp_path / "none.png")


@pytest.mark.parametrize(
    ("codebook", "expected"),
    [(np.zeros(257), "2 to 512 bytes"), (np.zeros(0), "found 0 bytes"), (np.array([1, np.inf]), "inf at entry 1")],
)
def test_codebooks_that_are_none(codebook: npt.NDArray[np.float64], expected: str, tmp_path: Path) -> None:
    net = Convnet((2, 2, 3)).full(4)
    with pytest.raises(MalformedSourceError, match=expected):
        load(net.write(tmp_path / "net.sqlite3", codebooks={0: codebook}))


def test_a_codebook_for_no_full_connect(tmp_path: Path) -> None:
    with pytest.raises(MalformedSourceError, match="no full connect"):
        load(Convnet((3, 3, 3)).conv(4).write(tmp_path / "net.sqlite3", codebooks={0: table(16)}))
