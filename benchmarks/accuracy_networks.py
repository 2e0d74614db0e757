"""Shows 1, 3 and 4 of accuracy.py: what real networks keep at a given size, beside their peers.

Sizes are files, graph and all; of a peer they are its bitstream or archive, which holds no graph. Two comparisons,
never mixed: what saw no data, or none but pictures drawn by chance, beside NNCodec as it is, and what saw
calibration.npz beside NNCodec with its own data-driven options.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import accuracy_lab, measuring
    from benchmarks.accuracy_lab import CIFAR, IMAGENET, MB, Entry, Judged, Lab
else:
    import accuracy_lab
    import measuring
    from accuracy_lab import CIFAR, IMAGENET, MB, Entry, Judged, Lab

NO_DATA, DRAWN, DATA = "none", "drawn", "calibration"
ALEXNET_LIMITS = ((NO_DATA, 2.2, 0.3), (NO_DATA, 1.5, 1.0), (DATA, 1.6, 0.3), (DATA, 1.2, 1.0), (DATA, 0.85, 2.0))
"""what the compression may see; MB of the file; points of top-1 that may be lost"""
ALEXNET_AIM = (DATA, 0.95, 1.0)
ALEXNET_QPS = (-31, -29, -27, -25, -23)
"""2.48, 1.95, 1.41, 0.95 and 0.55 MB"""
RESNET_LIMITS = ((DATA, 0.150, 1.0), (DATA, 0.125, 2.0))
RESNET_QPS = (-26, -24, -22, -20)
RESNET_LSA_QPS = (-22, -20, -18)
RESNET_BEST = {"bnf": True, "nonweight_qp": -50}
"""what makes NNCodec's files smallest there, without harm"""
SQUEEZENET_MB, SQUEEZENET_AGREEMENT = 0.45, 90.0
QCNN_SMALLER, QCNN_POINTS = 16.0, 1.0
LSA = {"lsa": True}
LSA_SETTINGS = {"epochs": 4, "learning_rate": 1e-3}


def alexnet(lab: Lab) -> Iterator[measuring.Results]:
    """Show 1."""
    model = lab.model("cifar-alexnet")
    plain = accuracy_lab.nncodec(lab, model, [{"qp": qp} for qp in ALEXNET_QPS])
    adapted = _nncodec_with_data(lab, model, [{"qp": qp, **LSA} for qp in ALEXNET_QPS[2:]])
    limits = [*ALEXNET_LIMITS, ALEXNET_AIM]
    ours = [automatic(lab, model, data, size * MB) for data, size, _ in limits]
    beside_plain = [automatic(lab, model, NO_DATA, peer.file_bytes) for peer in plain]
    drawn = [automatic(lab, model, DRAWN, peer.file_bytes) for peer in plain]
    calibrated = [automatic(lab, model, DATA, peer.file_bytes) for peer in plain]
    others = [mixed(lab, model), *accuracy_lab.gptq(lab, model, lab.calibration, (4, 3, 2), 128)]
    entries = [*ours, *beside_plain, *drawn, *calibrated, *others, *plain, *adapted]
    judged = accuracy_lab.judge(model, entries, lab.test, CIFAR)
    by_entry = dict(zip(entries, judged[1:], strict=True))
    results = accuracy_lab.table("1. cifar-alexnet", judged)
    for entry, (_, size, points) in zip(ours, ALEXNET_LIMITS, strict=False):
        results.targets += accuracy_lab.within(by_entry[entry], size, points)
    results.notes += [f"aim: {target}" for target in accuracy_lab.within(by_entry[ours[-1]], *ALEXNET_AIM[1:])]
    for entry, peer in zip(calibrated, plain, strict=True):
        what = f"points above {peer.label} at {peer.file_bytes / MB:.2f} MB (ours calibrated; the peer had no data)"
        gained = by_entry[entry].top1 - by_entry[peer].top1
        results.targets.append(measuring.Target(what, gained, 0.0, least=True))
    results.notes += compared("without data", [by_entry[each] for each in (*beside_plain, *plain)], len(plain))
    results.notes += compared("drawn pictures", [by_entry[each] for each in (*drawn, *plain)], len(plain))
    results.notes += compared("with data", [by_entry[each] for each in (*calibrated[2:], *adapted)], len(adapted))
    yield noted(lab, results)


def resnet(lab: Lab) -> Iterator[measuring.Results]:
    """The first half of Show 3."""
    model = lab.model("cifar-resnet")
    plain = accuracy_lab.nncodec(lab, model, [{"qp": qp, **RESNET_BEST} for qp in RESNET_QPS])
    unfolded = accuracy_lab.nncodec(lab, model, [{"qp": qp} for qp in RESNET_QPS])
    folded = accuracy_lab.nncodec(lab, _folded(lab, model), [{"qp": qp} for qp in RESNET_QPS])
    before = accuracy_lab.relabelled(folded, "BatchNorm folded before")
    adapted = _nncodec_with_data(lab, model, [{"qp": qp, **RESNET_BEST, **LSA} for qp in RESNET_LSA_QPS])
    ours = [automatic(lab, model, data, size * MB, "--fold") for data, size, _ in RESNET_LIMITS]
    beside_plain = [automatic(lab, model, NO_DATA, peer.file_bytes, "--fold") for peer in plain]
    drawn = [automatic(lab, model, DRAWN, peer.file_bytes, "--fold") for peer in plain]
    calibrated = [automatic(lab, model, DATA, peer.file_bytes, "--fold") for peer in adapted]
    entries = [*ours, *beside_plain, *drawn, *calibrated, *plain, *unfolded, *before, *adapted]
    judged = accuracy_lab.judge(model, entries, lab.test, CIFAR)
    by_entry = dict(zip(entries, judged[1:], strict=True))
    results = accuracy_lab.table("3. cifar-resnet", judged)
    for entry, (_, size, points) in zip(ours, RESNET_LIMITS, strict=True):
        results.targets += accuracy_lab.within(by_entry[entry], size, points)
    results.notes += compared("without data", [by_entry[each] for each in (*beside_plain, *plain)], len(plain))
    results.notes += compared("drawn pictures", [by_entry[each] for each in (*drawn, *plain)], len(plain))
    results.notes += compared("with data", [by_entry[each] for each in (*calibrated, *adapted)], len(adapted))
    yield noted(lab, results)
    yield squeezenet(lab)


def squeezenet(lab: Lab) -> measuring.Results:
    """The second half of Show 3: every fourth photograph to calibrate, the others to judge."""
    model = lab.zoo / "squeezenet-dc" / "squeezenet.onnx"
    chosen, rest = lab.folder / "photographs-calibration", lab.folder / "photographs-rest"
    accuracy_lab.job("part", lab.zoo / "imagenet-sample", chosen, rest, "4")
    size = str(int(SQUEEZENET_MB * MB))
    options = ("--scheme", "auto", "--target-size", size, "--calibration", chosen, *IMAGENET)
    entry = accuracy_lab.convert(lab, model, "auto 0.45 MB", *options, data=DATA)
    exact = accuracy_lab.convert(lab, model, "lossless", "--scheme", "lossless", *IMAGENET)
    judged = accuracy_lab.judge(model, [entry, exact], rest, IMAGENET)
    results = accuracy_lab.table("3. squeezenet.onnx", judged)
    results.targets = [
        measuring.Target("squeezenet: file", entry.file_bytes / MB, SQUEEZENET_MB, "MB"),
        measuring.Target("squeezenet: agreement", judged[1].agreement, SQUEEZENET_AGREEMENT, "%", least=True),
    ]
    return results


def qcnn(lab: Lab) -> Iterator[measuring.Results]:
    """Show 4: response errors are measured on pictures that learned no codebook."""
    model = lab.model("cifar-alexnet")
    learned = accuracy_lab.convert(
        lab, model, "qcnn", "--scheme", "qcnn", "--calibration", lab.fitted, *CIFAR, data=DATA
    )
    plain = accuracy_lab.convert(lab, model, "qcnn on the weights", "--scheme", "qcnn", *CIFAR)
    judged = accuracy_lab.judge(model, [learned, plain], lab.test, CIFAR)
    results = accuracy_lab.table("4. qcnn on cifar-alexnet", judged)
    smaller = model.stat().st_size / learned.file_bytes
    results.targets = [
        measuring.Target("qcnn: times smaller than float32", smaller, QCNN_SMALLER, least=True),
        measuring.Target("qcnn: points lost", judged[1].lost, QCNN_POINTS),
        measuring.Target("qcnn: file / that of plain k-means", learned.file_bytes / plain.file_bytes, 1.005),
    ]
    tensors = lab.folder / "held-out.npz"
    accuracy_lab.job("prepare", lab.unseen, tensors, CIFAR[1], CIFAR[3])
    exported = [accuracy_lab.export(entry) for entry in (learned, plain)]
    ours, theirs = accuracy_lab.job("responses", model, tensors, *exported)
    for tensor, error in theirs.items():
        if error:
            what = f"response error of {tensor} / plain k-means on the weights ({ours[tensor]:.4f} / {error:.4f})"
            results.targets.append(measuring.Target(what, ours[tensor] / error, 1.0))
    yield results


def automatic(lab: Lab, model: Path, data: str, size: float, *options: str, label: str | None = None) -> Entry:
    """``--scheme auto`` to a size in bytes."""
    calibration: tuple[str | Path, ...] = ()
    if data != NO_DATA:
        calibration = ("--calibration", lab.drawn if data == DRAWN else lab.calibration)
    target = ("--scheme", "auto", "--order-units", "--target-size", str(int(size)), *calibration, *options)
    return accuracy_lab.convert(lab, model, label or f"auto {size / MB:.3f} MB", *target, *CIFAR, data=data)


def mixed(lab: Lab, model: Path) -> Entry:
    """What was the default before ``auto``."""
    return accuracy_lab.convert(lab, model, "mixed-4-8", "--scheme", "mixed-4-8", *CIFAR)


def compared(what: str, judged: Sequence[Judged], count: int) -> Iterator[str]:
    """A line for each pair of an entry and its peer; the first ``count`` are ours, then the peers."""
    for ours, peer in zip(judged[:count], judged[count:], strict=True):
        gained = ours.top1 - peer.top1
        yield (
            f"{what}: {ours.entry.file_bytes / MB:.3f} MB {ours.top1:.2f} %, {peer.entry.label} "
            f"{peer.entry.file_bytes / MB:.3f} MB {peer.top1:.2f} %: {abs(gained):.2f} points "
            f"{'above' if gained >= 0 else 'BELOW'}"
        )


def noted(lab: Lab, results: measuring.Results) -> measuring.Results:
    if not accuracy_lab.has_nncodec(lab.peer_python):
        results.notes.append("note: NNCodec is missing (--peer-python); nothing was compared with it")
    return results


def _folded(lab: Lab, model: Path) -> Path:
    """The network with its BatchNormalization in the weights, for a peer that is given no more than arrays."""
    return accuracy_lab.export(accuracy_lab.convert(lab, model, "folded", "--scheme", "lossless", "--fold"))


def _nncodec_with_data(lab: Lab, model: Path, points: Sequence[dict[str, int | bool]]) -> list[Entry]:
    """Its own training set and validation set; what judges is in neither."""
    fit, validation = lab.fitted, lab.unseen
    if lab.rehearsal:
        fit, validation = lab.part(lab.fitted, 0, 4096), lab.part(lab.fitted, 4096, accuracy_lab.FITTED)
    return accuracy_lab.nncodec(lab, model, points, fit=fit, validation=validation, **LSA_SETTINGS)
