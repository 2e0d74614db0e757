"""Shows 2, 5, 6 and 7 of accuracy.py: the full-size AlexNet, targets and sameness, graph transforms, what it costs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import accuracy_lab, accuracy_networks, measuring
    from benchmarks.accuracy_lab import CIFAR, IMAGENET, MB, Entry, Lab
else:
    import accuracy_lab
    import accuracy_networks
    import measuring
    from accuracy_lab import CIFAR, IMAGENET, MB, Entry, Lab

FC_DB, CONV_DB = 17.8, 50.0
FULL_PLAN = f"""\
scheme = "auto"
[operator.Gemm]
sqnr = {FC_DB}
[operator.Conv]
sqnr = {CONV_DB}
"""
FULL_MB, FULL_AIM_MB, FULL_SECONDS, FULL_GB = 25.8, 25.2, 28.0, 1.5
FULL_QPS = {"fc6.weight": -37, "fc7.weight": -35, "fc8.weight": -33, "conv1.weight": -50, "conv2.weight": -52,
            "conv3.weight": -53, "conv4.weight": -53, "conv5.weight": -53}  # fmt: skip
"""NNCodec's steps for about the same quality"""
BELOW = 0.01
"""of a target size"""
LARGEST_DROP = 0.5
ALEXNET_SECONDS, ALEXNET_GB = 200.0, 2.5
NOISE_SECONDS, NOISE_GB, NOISE_PICTURES = 720.0, 6.0, 256
LOW_RANKS = (None, 1024, 512, 256)
LOW_RANK_PRICES = (0.00075, 0.0025)
"""about 1.2 and 0.8 MB"""
FOLD_DIFFERENCE = 1e-5
COSTS = ("conversion", "file bytes", "CPU s", "peak MB")


def full_alexnet(lab: Lab) -> Iterator[measuring.Results]:
    """Show 2. The weights are synthetic: this is about coding, not about accuracy."""
    model = full_model(lab)
    plan = lab.folder / "full.toml"
    plan.write_text(FULL_PLAN)
    entry = accuracy_lab.convert(lab, model, "auto by SQNR", "--scheme", plan, "--order-units")
    # Units in another order are the same network: its weights are compared in that order.
    ordered = accuracy_lab.export(accuracy_lab.convert(lab, model, "ordered", "--scheme", "lossless", "--order-units"))
    found = accuracy_lab.job("sqnr", ordered, entry.path)
    columns = ("model", "file bytes", "least FC dB", "least conv dB", "CPU s", "peak MB")
    results = measuring.Results("2. AlexNet at full size (synthetic weights: coding, not accuracy)", columns)
    fc, conv = _least(found)
    results.rows.append((entry.label, entry.file_bytes, fc, conv, entry.cpu_seconds, _megabytes(entry)))
    for peer in accuracy_lab.nncodec(lab, model, [{"qp": -37, "qp_per_tensor": FULL_QPS}]):
        decibels = _least(accuracy_lab.job("sqnr", model, peer.path))
        results.rows.append(("NNCodec (bitstream)", peer.file_bytes, *decibels, peer.cpu_seconds, None))
    results.targets = [
        measuring.Target("file", entry.file_bytes / MB, FULL_MB, "MB"),
        measuring.Target("least SQNR of an FC weight", fc, FC_DB, "dB", least=True),
        measuring.Target("least SQNR of a conv weight", conv, CONV_DB, "dB", least=True),
        *_costs("conversion", entry, FULL_SECONDS, FULL_GB),
    ]
    results.notes.append(f"aim: {measuring.Target('file', entry.file_bytes / MB, FULL_AIM_MB, 'MB')}")
    yield accuracy_networks.noted(lab, results)


def targets(lab: Lab) -> Iterator[measuring.Results]:
    """Show 5."""
    yield _sizes(lab)
    yield _drop(lab)
    yield _sameness(lab)


def _sizes(lab: Lab) -> measuring.Results:
    alexnet, resnet = lab.model("cifar-alexnet"), lab.model("cifar-resnet")
    wanted = [
        (accuracy_networks.automatic(lab, alexnet, "none", 2.0 * MB), 2.0 * MB),
        (accuracy_networks.automatic(lab, alexnet, "calibration", 1.0 * MB), 1.0 * MB),
        (accuracy_networks.automatic(lab, resnet, "none", 0.2 * MB), 0.2 * MB),
        (accuracy_networks.automatic(lab, resnet, "calibration", 0.14 * MB, "--fold"), 0.14 * MB),
    ]
    results = measuring.Results("5. target sizes", COSTS)
    for entry, size in wanted:
        results.rows.append(_cost_row(entry))
        results.targets += [
            measuring.Target(f"{entry.label}: file / target", entry.file_bytes / size, 1.0),
            measuring.Target(f"{entry.label}: file / target", entry.file_bytes / size, 1 - BELOW, least=True),
        ]
    return results


def _drop(lab: Lab) -> measuring.Results:
    """The search sees the first pictures of calibration.npz; judged on its last ones, and on test.npz."""
    model = lab.model("cifar-alexnet")
    options = ("--scheme", "auto", "--calibration", lab.fitted, "--max-drop", str(LARGEST_DROP), *CIFAR)
    entry = accuracy_lab.convert(lab, model, f"auto, drop at most {LARGEST_DROP}", *options, data="calibration")
    results = measuring.Results("5. largest drop", accuracy_lab.COLUMNS)
    for name, data in (("the last of calibration.npz", lab.unseen), (lab.test.name, lab.test)):
        (_, judged) = accuracy_lab.judge(model, [entry], data, CIFAR)
        results.rows.append((f"{entry.label}, on {name}", *judged.row()[1:]))
        results.targets.append(measuring.Target(f"points lost on {name}", judged.lost, LARGEST_DROP))
    return results


def _sameness(lab: Lab) -> measuring.Results:
    """The same bytes from the saved plan, from two threads, from a cluster."""
    model = lab.model("cifar-resnet")
    plan = lab.folder / "saved.toml"
    data: tuple[str | Path, ...] = ("--calibration", lab.fitted, *CIFAR)
    searched: tuple[str | Path, ...] = ("--scheme", "auto", "--target-size", "140000", "--fold", *data)
    with _threads("1"):
        first = accuracy_lab.convert(lab, model, "one thread", *searched, "--threads", "1", "--save-plan", plan)
    with _threads("2"):
        again = [accuracy_lab.convert(lab, model, "two threads", *searched, "--threads", "2")]
    again.append(accuracy_lab.convert(lab, model, "from the saved plan", "--scheme", plan, *data))
    with _cluster(workers=2) as address:
        again.append(accuracy_lab.convert(lab, model, "on a Dask cluster", *searched, "--executor", address))
    results = measuring.Results("5. the same bytes", COSTS, rows=[_cost_row(entry) for entry in (first, *again)])
    for entry in again:
        different = 0.0 if _digest(entry.path) == _digest(first.path) else 1.0
        results.targets.append(measuring.Target(f"{entry.label}: files that differ", different, 0.0))
    return results


def transforms(lab: Lab) -> Iterator[measuring.Results]:
    """Show 6."""
    source = lab.zoo / "ultraface" / "version-RFB-320.onnx"
    folded = accuracy_lab.export(accuracy_lab.convert(lab, source, "RFB", "--scheme", "lossless", "--fold"))
    before, after = (accuracy_lab.job("operators", path) for path in (source, folded))
    results = measuring.Results("6. --fold on the un-simplified RFB-320", ("operator", "before", "after"))
    results.rows = [(name, before.get(name, 0), after.get(name, 0)) for name in sorted({*before, *after})]
    results.targets = [
        measuring.Target("BatchNormalization left", after.get("BatchNormalization", 0), 0),
        measuring.Target(
            "largest difference of an output", accuracy_lab.job("outputs", source, folded), FOLD_DIFFERENCE
        ),
    ]
    yield results
    model = lab.model("cifar-alexnet")
    entries = [_low_rank(lab, model, price, rank) for price in LOW_RANK_PRICES for rank in LOW_RANKS]
    yield accuracy_lab.table("6. --low-rank on fc6 of cifar-alexnet",
                             accuracy_lab.judge(model, entries, lab.test, CIFAR))  # fmt: skip


def costs(lab: Lab) -> Iterator[measuring.Results]:
    """Show 7."""
    real = accuracy_lab.convert(lab, lab.model("cifar-alexnet"), "cifar-alexnet, calibrated", "--scheme", "auto",
                                "--calibration", lab.calibration, *CIFAR)  # fmt: skip
    noise = lab.folder / "noise.npz"
    accuracy_lab.job("draw", noise, str(NOISE_PICTURES), "227")
    full = accuracy_lab.convert(lab, full_model(lab), "AlexNet at full size, calibrated on noise", "--scheme", "auto",
                                "--calibration", noise, *IMAGENET)  # fmt: skip
    yield measuring.Results(
        "7. costs", COSTS, rows=[_cost_row(real), _cost_row(full)],
        targets=[
            *_costs(real.label, real, ALEXNET_SECONDS, ALEXNET_GB),
            *_costs(full.label, full, NOISE_SECONDS, NOISE_GB),
        ],
    )  # fmt: skip


def full_model(lab: Lab) -> Path:
    """The full-size AlexNet, made once."""
    out = lab.folder / "alexnet" / "model.onnx"
    if not out.exists():
        out.parent.mkdir()
        measuring.python(lab.zoo / "make_alexnet.py", out)
    return out


def _low_rank(lab: Lab, model: Path, price: float, rank: int | None) -> Entry:
    plan = lab.folder / f"price-{price}.toml"
    plan.write_text(f'scheme = "auto"\nprice = {price}\n')
    label = f"auto at price {price}, fc6 {'whole' if rank is None else f'of rank {rank}'}"
    options = () if rank is None else ("--low-rank", f"fc6.weight={rank}")
    given = ("--scheme", plan, "--order-units", "--calibration", lab.calibration, *options, *CIFAR)
    return accuracy_lab.convert(lab, model, label, *given, data="calibration")


def _least(decibels: Mapping[str, float]) -> tuple[float, float]:
    """Of the FC and of the conv weights."""
    fc = min(value for name, value in decibels.items() if name.startswith("fc"))
    return fc, min(value for name, value in decibels.items() if name.startswith("conv"))


def _costs(what: str, entry: Entry, seconds: float, gigabytes: float) -> list[measuring.Target]:
    assert entry.cpu_seconds is not None
    assert entry.peak_bytes is not None
    return [
        measuring.Target(f"{what}: CPU seconds", entry.cpu_seconds, seconds),
        measuring.Target(f"{what}: peak memory", entry.peak_bytes / (1000 * MB), gigabytes, "GB"),
    ]


def _cost_row(entry: Entry) -> tuple[str | float | int | None, ...]:
    return (entry.label, entry.file_bytes, entry.cpu_seconds, _megabytes(entry))


def _megabytes(entry: Entry) -> float | None:
    return None if entry.peak_bytes is None else entry.peak_bytes / MB


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _threads(count: str) -> Iterator[None]:
    """What the linear algebra of numpy and scipy takes, in processes started here."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, count))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _cluster(workers: int) -> Iterator[str]:
    """The address of a local Dask cluster, as ``--executor`` takes it."""
    command = [sys.executable, str(measuring.FOLDER / "dask_cluster.py"), str(workers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip().replace("tcp://", "dask://")
        finally:
            process.stdin.close()
