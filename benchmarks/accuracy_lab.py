"""What the parts of accuracy.py share: conversions, the one judge of every model, the peers' points, tables.

Nothing heavy is imported here (see measuring.py); arrays are handled by jobs, in processes of their own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # to a type checker this folder is a package; a script finds the files beside it
    from benchmarks import measuring
else:
    import measuring

MB = measuring.MB
JOB = "accuracy_job.py"
CIFAR = ("--mean", "125.268845,122.93302,113.86284", "--scale", "0.015625", "--channels", "rgb")
"""preprocessing of the cifar networks"""
IMAGENET = ("--mean", "104,117,123", "--channels", "bgr", "--resize", "256x256", "--crop", "227")
"""preprocessing of squeezenet.onnx"""
FITTED, JUDGED = 6144, 2048
"""of calibration.npz, the first pictures; choices are judged on the others"""
COLUMNS = ("model", "data", "file bytes", "top-1 %", "points", "95 % low", "95 % high", "agree %", "KL nats", "CPU s")


@dataclass(frozen=True)
class Entry:
    """A model to be judged: a bundle or an ONNX file, and what it costs."""

    label: str
    data: str
    """what the compression saw: ``none``, ``drawn`` (pictures drawn by chance), ``calibration``"""
    path: Path
    file_bytes: int
    """the bundle; of a peer its bitstream, which holds no graph"""
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Judged:
    """An entry on some pictures, beside the float model."""

    entry: Entry
    top1: float
    points: float
    low: float
    high: float
    agreement: float
    divergence: float | None

    @property
    def lost(self) -> float:
        """Points of top-1 below the float model."""
        return -self.points

    def row(self) -> tuple[str | float | int | None, ...]:
        entry = self.entry
        figures = (self.top1, self.points, self.low, self.high, self.agreement, self.divergence)
        return (entry.label, entry.data, entry.file_bytes, *figures, entry.cpu_seconds)


@dataclass(frozen=True)
class Lab:
    """Where things are: a temporary folder, the zoo, the peer's interpreter (None where it is missing)."""

    folder: Path
    zoo: Path
    peer_python: Path | None
    rehearsal: bool = False
    """judge on the last pictures of calibration.npz, which are then taken from what the compression sees"""

    @property
    def calibration(self) -> Path:
        """What the compression may see."""
        return self.fitted if self.rehearsal else self.zoo / "cifar-alexnet" / "calibration.npz"

    @property
    def fitted(self) -> Path:
        """The first pictures of calibration.npz."""
        return self.part(self.zoo / "cifar-alexnet" / "calibration.npz", 0, FITTED)

    @property
    def unseen(self) -> Path:
        """The others."""
        return self.part(self.zoo / "cifar-alexnet" / "calibration.npz", FITTED, FITTED + JUDGED)

    @property
    def drawn(self) -> Path:
        """Pictures that nobody took: no data."""
        out = self.folder / "drawn.npz"
        if not out.exists():
            measuring.python("-m", "mobilemodel", "draw", out, "--size", "32x32")
        return out

    @property
    def test(self) -> Path:
        """Read by the judge alone; no choice is made on it."""
        return self.unseen if self.rehearsal else self.zoo / "cifar-alexnet" / "test.npz"

    def model(self, name: str) -> Path:
        return self.zoo / name / "model.onnx"

    def part(self, data: Path, start: int, stop: int) -> Path:
        """Some pictures of a .npz file, as a file."""
        out = self.folder / f"{data.stem}-{start}-{stop}.npz"
        if not out.exists():
            job("take", data, out, str(start), str(stop))
        return out


def job(*arguments: str | Path) -> Any:
    return measuring.job(JOB, *arguments)


def convert(lab: Lab, model: Path, label: str, *options: str | Path, data: str = "none") -> Entry:
    """``mobilemodel convert`` in a process of its own."""
    # The number keeps two conversions apart that differ in their options alone.
    number = len(list(lab.folder.iterdir()))
    out = lab.folder / f"{model.parent.name}-{label.replace(' ', '-').replace('/', '-')}-{number}.mm"
    took = measuring.convert(model, out, "--force", *map(str, options))
    return Entry(label, data, out, out.stat().st_size, took.cpu_seconds, took.peak_bytes)


def export(entry: Entry) -> Path:
    """The bundle as a plain ONNX file."""
    out = entry.path.with_suffix(".onnx")
    measuring.python("-m", "mobilemodel", "export", entry.path, out, "--force")
    return out


def judge(reference: Path, entries: Sequence[Entry], data: Path, preprocessing: Sequence[str]) -> list[Judged]:
    """Every entry through ``mobilemodel eval`` beside the float model, which comes first in what is returned."""
    models = [reference, *(entry.path for entry in entries)]
    took = measuring.python("-m", "mobilemodel", "eval", *models, "--data", data, *preprocessing, "--json")
    found = json.loads(took.stdout)["models"]
    first = Entry("float32", "-", reference, reference.stat().st_size)
    judged = [Judged(first, found[0]["top1"], 0.0, 0.0, 0.0, 100.0, 0.0)]
    for entry, values in zip(entries, found[1:], strict=True):
        beside = values["beside_first"]
        top1 = beside["top1"]
        judged.append(
            Judged(entry, values["top1"], top1["points"], top1["low"], top1["high"],
                   beside["agreement"], beside["divergence_nats"])
        )  # fmt: skip
    return judged


def table(name: str, judged: Sequence[Judged]) -> measuring.Results:
    return measuring.Results(name, COLUMNS, rows=[each.row() for each in judged])


def within(judged: Judged, megabytes: float, points: float) -> list[measuring.Target]:
    """The two targets of a model that has to be that small and that accurate."""
    label = f"{judged.entry.label} ({judged.entry.data})"
    return [
        measuring.Target(f"{label}: file", judged.entry.file_bytes / MB, megabytes, "MB"),
        measuring.Target(f"{label}: points lost", judged.lost, points),
    ]


@cache
def has_nncodec(python: Path | None) -> bool:
    """Whether an interpreter can import the peer."""
    if python is None:
        return False
    done = subprocess.run([python, "-c", "import nncodec.nn"], capture_output=True, check=False)
    return done.returncode == 0


def nncodec(
    lab: Lab,
    model: Path,
    points: Sequence[Mapping[str, Any]],
    *,
    fit: Path | None = None,
    validation: Path | None = None,
    **settings: Any,
) -> list[Entry]:
    """Points of NNCodec's curve; empty where it is missing. With ``fit``, its data-driven options may be on."""
    if lab.peer_python is None or not has_nncodec(lab.peer_python):
        return []
    folder = lab.folder / f"nncodec-{len(list(lab.folder.iterdir()))}"
    folder.mkdir()
    layers = job("describe", model, folder / "weights.npz")
    what = {"weights": str(folder / "weights.npz"), "out": str(folder), "points": [dict(point) for point in points],
            "layers": layers, **settings}  # fmt: skip
    for name, data in (("train", fit), ("val", validation)):
        if data is not None:
            job("prepare", data, folder / f"{name}.npz", CIFAR[1], CIFAR[3])
            what["data"] = str(folder)
    (folder / "job.json").write_text(json.dumps(what))
    script = measuring.FOLDER / "nncodec_job.py"
    took = measuring.run(lab.peer_python, script, folder / "job.json")
    entries = []
    for number, point in enumerate(json.loads(took.stdout.splitlines()[-1])):
        path = folder / f"decoded-{number}.onnx"
        job("assemble", model, point["weights"], path)
        used = "calibration" if fit is not None else "none"
        entries.append(Entry(_peer_label(point["options"]), used, path, point["bytes"], point["cpu_seconds"]))
    return entries


def _peer_label(options: Mapping[str, Any]) -> str:
    others = [name if value is True else f"{name} {value}" for name, value in options.items() if name != "qp"]
    return " ".join(["NNCodec qp", str(options["qp"]), *others])


def relabelled(entries: Sequence[Entry], more: str) -> list[Entry]:
    return [replace(entry, label=f"{entry.label}, {more}") for entry in entries]


def gptq(lab: Lab, model: Path, data: Path, bits: Sequence[int], group: int) -> list[Entry]:
    """Plain GPTQ with groups, and zstd."""
    tensors = lab.folder / "gptq.npz"
    job("prepare", data, tensors, CIFAR[1], CIFAR[3])
    entries = []
    for each in bits:
        out = lab.folder / f"gptq-{each}.npz"
        found = measuring.job("gptq_job.py", model, tensors, out, str(each), str(group))
        path = out.with_suffix(".onnx")
        job("assemble", model, out, path)
        label = f"GPTQ {each} bit, groups of {group}, zstd"
        entries.append(Entry(label, "calibration", path, found["bytes"], found["cpu_seconds"]))
    return entries
