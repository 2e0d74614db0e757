"""What fuzzing and its slowest and largest cases found: each stays found."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilemodel.errors import LimitExceededError, MalformedSourceError, MobileModelError
from mobilemodel_converters.caffe.blobs import to_single
from mobilemodel_converters.network import NetworkBuilder
from tests import ccv_databases
from tests.caffe_files import layer, load, net, text, values, write
from tests.ccv_databases import Convnet
from tests.fuzz.targets import check_model

LONGEST = 60.0
"""CPU seconds after which a file below 1 MiB counts as a hang: its work grew with the square of its size"""


def ip(**fields: Any) -> Any:
    """A layer with weights: files without any are refused before all else."""
    return layer("ip", "InnerProduct", "data", "ip", [values(4, 6)],
                 inner_product_param={"num_output": 4, "bias_term": False}, **fields)  # fmt: skip


def many_stages() -> Any:
    """A rule of many stages in a network of many."""
    names = [f"s{number}" for number in range(60_000)]
    return net(ip(include=[{"stage": names}]), shape=(1, 6), state={"stage": names[::-1]})


def many_inputs() -> Any:
    """Inputs that no layer takes."""
    made = net(ip(), shape=(1, 6))
    for number in range(25_000):
        made.input.append(f"i{number}")
        made.input_shape.add(dim=[1])
    return made


def many_losses() -> Any:
    """Losses that all become a layer of the same name."""
    return net(ip(), *(layer("l", "SoftmaxWithLoss", "ip label", "l") for _ in range(6000)), shape=(1, 6))


@pytest.mark.parametrize("make", [many_stages, many_inputs, many_losses])
def test_time_does_not_grow_with_the_square(make: Callable[[], Any], tmp_path: Path) -> None:
    path = write(tmp_path, "net.caffemodel", make())
    assert path.stat().st_size < 1 << 20
    start = time.process_time()
    try:
        model = load(path)
        check_model(model)
        model.close()
    except MobileModelError:
        pass
    assert time.process_time() - start < LONGEST


def test_constants_of_all_layers_are_bounded(tmp_path: Path) -> None:
    """Each PriorBox is within its own limit; a file of 8 kB asked for 6 GB of them."""
    boxes = [layer(f"p{i}", "PriorBox", "c data", f"p{i}", prior_box_param={"min_size": [3]}) for i in range(200)]
    c = layer("c", "Convolution", "data", "c", [values(1, 1, 1, 1)],
              convolution_param={"num_output": 1, "kernel_size": [1], "bias_term": False})  # fmt: skip
    path = write(tmp_path, "net.caffemodel", net(c, *boxes, shape=(1, 1, 1024, 1024)))
    with pytest.raises(LimitExceededError, match=r"the graph's constants: expected at most 67108864 bytes"):
        load(path)


def test_partitions_of_all_normalisations_are_bounded(tmp_path: Path) -> None:
    """Each one is a node: a file of 64 kB became a graph of 42 MB in 20 seconds."""
    made = Convnet((1, 1, 256))
    for _ in range(100):
        made.norm(3, partition=256)
    with pytest.raises(LimitExceededError, match=r"partitions of all normalisations: expected at most 4096"):
        ccv_databases.load(made.write(tmp_path / "net.sqlite3"))


def test_an_error_does_not_keep_the_database_open(tmp_path: Path) -> None:
    """The error remembers where it was raised; a cursor there kept the file open as long as the error lived."""
    path = Convnet((4, 4, 3)).conv(2).write(tmp_path / "net.sqlite3")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE layer_data SET bias = CAST(x'FF' AS TEXT)")
    connection.close()
    with pytest.raises(MalformedSourceError) as caught:
        ccv_databases.load(path)
    opened = Path("/proc/self/fd")
    if opened.is_dir():
        assert path not in [link.readlink() for link in opened.iterdir() if link.is_symlink()]
    assert "UTF-8" in str(caught.value)


def test_a_signalling_nan_is_rounded_without_a_word() -> None:
    """numpy warns of an invalid value in a cast; the file may hold any bits."""
    signalling = np.array([0x7FF0000000000001], np.uint64).view(np.float64)
    assert np.isnan(to_single(signalling)).all()


def test_an_unknown_escape_is_taken_without_a_word(tmp_path: Path) -> None:
    """protobuf leaves escapes to Python, which warns of those that it does not know: a warning of ours is an error."""
    weights = write(tmp_path, "net.caffemodel", net(ip(), shape=(1, 6)))
    data = b'layer { name: "\\data" type: "Data" top: "x" include { phase: TRAIN } }'
    load(write(tmp_path, "net.prototxt", text(net(ip(), shape=(1, 6))) + data), weights).close()


def test_numbers_behind_names_are_taken_one_by_one() -> None:
    network = NetworkBuilder("names")
    for name in ("x", "x_2", "x_3"):
        network.input(name, (1,))
    assert [network.input("x", (1,)) for _ in range(3)] == ["x_4", "x_5", "x_6"]
