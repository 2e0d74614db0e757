"""A goal becomes a bundle and a plan: targets are hit, plans give the same bytes, what cannot be is refused first."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilemodel as mm
from mobilemodel.dtypes import DType
from mobilemodel.errors import OutputExistsError, UsageError
from mobilemodel.model import Role, SourceTensor
from mobilemodel.pipeline import ConvertOptions, FittingOptions, Goal, Searching, convert_within
from mobilemodel.pipeline import searching as searching_module
from mobilemodel.pipeline.recipes import CALIBRATED_PRICE, read_scheme
from mobilemodel.quantize import rules
from mobilemodel.quantize.rules import DEFAULT_PRICE
from mobilemodel.runtime.data import Data
from mobilemodel.runtime.session import run, session
from mobilemodel.search import Candidate, Transforms
from tests.calibrating import labelled, residual_net


@dataclass(frozen=True)
class Case:
    """A network's file, data, and a folder to write to."""

    source: Path
    data: Data
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out.mm"

    @property
    def plan(self) -> Path:
        return self.folder / "out.mm.toml"

    def options(self, held_out: int = 100, **more: Any) -> ConvertOptions:
        return ConvertOptions(fitting=FittingOptions(self.data, "0" * 64, held_out, seed=3), **more)

    def search(self, goal: Goal, options: ConvertOptions | None = None, scheme: str | Path = "auto") -> Searching:
        chosen = self.options() if options is None else options
        return convert_within(self.source, self.out, goal, read_scheme(scheme), chosen, self.plan)

    def again(self, options: ConvertOptions | None = None) -> bytes:
        """What the saved plan gives."""
        copy = self.folder / "copy.mm"
        chosen = self.options() if options is None else options
        mm.convert(self.source, copy, scheme=self.plan, options=replace(chosen, force=True, transforms=Transforms()))
        return copy.read_bytes()


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = residual_net()
    folder = tmp_path / "written"
    folder.mkdir()
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    return Case(tmp_path / "net.onnx", labelled(made, 300), folder)


def forbidden(*_: Any) -> None:
    raise AssertionError("a candidate was made")


@pytest.fixture
def no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the search would take hours for is not begun."""
    monkeypatch.setattr(searching_module.Trial, "__call__", forbidden)
    monkeypatch.setattr(searching_module, "_weights", forbidden)


@pytest.mark.parametrize("with_data", [False, True])
def test_a_target_is_hit_within_one_per_cent_below_and_the_plan_repeats_it(with_data: bool, tmp_path: Path) -> None:
    made = residual_net(hidden=1500)
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    case = Case(tmp_path / "net.onnx", labelled(made, 400), tmp_path)
    options = case.options() if with_data else ConvertOptions()
    target = 62_000 if with_data else 97_000
    found = case.search(Goal(target_size=target), options)
    size = case.out.stat().st_size
    assert found.found.met
    assert 0.99 * target <= size <= target
    assert found.report.file_bytes == size == tomllib.loads(found.plan)["search"]["size"]
    assert case.plan.read_text() == found.plan
    assert case.again(options) == case.out.read_bytes()
    with mm.open(case.out) as bundle:
        mm.verify(bundle, [case.source])


def test_a_search_that_started_from_a_plan_saves_one_that_repeats_it(case: Case) -> None:
    mine = case.folder / "mine.toml"
    mine.write_text('scheme = "auto"\n[name."conv1.weight"]\nencoding = "float16"\n[transforms]\nfold = true\n')
    found = case.search(Goal(target_size=6000), scheme=mine)
    assert found.report.scheme == "auto"
    assert case.again() == case.out.read_bytes()
    saved = tomllib.loads(found.plan)
    assert saved["name"]["conv1.weight"] == {"encoding": "float16"}
    assert [name for name, asked in saved["transforms"].items() if asked] == ["fold"]
    assert {row.name: row.reason for row in found.report.tensors}["conv1.weight"] == "rounded to float16"


def test_what_the_options_transform_is_in_the_plan(case: Case) -> None:
    options = case.options(transforms=Transforms(low_rank={"fc1.weight": 20}))
    case.search(Goal(target_size=6000), options)
    assert case.again() == case.out.read_bytes()


def test_the_plan_tells_how_the_data_were_used(case: Case) -> None:
    saved = tomllib.loads(case.search(Goal(largest_divergence=0.02)).plan)
    assert saved["calibration"] == {
        "samples": 200, "held_out": 100, "mirror": True, "damping": 0.01, "seed": 3, "sha256": "0" * 64,
    }  # fmt: skip
    assert saved["search"]["largest_divergence"] == 0.02
    assert saved["search"]["divergence"] <= 0.02


def test_a_divergence_is_kept_on_data_without_labels(case: Case) -> None:
    unlabelled = replace(case, data=replace(case.data, classes=None))
    found = unlabelled.search(Goal(largest_divergence=0.01))
    assert found.found.chosen is not None
    outcome = found.found.chosen.outcome
    assert outcome.drop is None
    assert outcome.divergence is not None
    assert 0.008 <= outcome.divergence <= 0.01
    assert unlabelled.again(unlabelled.options()) == case.out.read_bytes()


def test_a_drop_is_judged_on_held_out_samples_alone(case: Case) -> None:
    found = case.search(Goal(largest_drop=10))
    assert found.found.chosen is not None
    outcome, held = found.found.chosen.outcome, case.data.split(100)[1]
    assert held is not None
    with mm.open(case.out) as bundle:
        scores = run(session(bundle), {"x": np.asarray(held.x)})["y"]
    assert outcome.drop == pytest.approx(100 - 100 * float((scores.argmax(axis=1) == held.classes).mean()))
    assert outcome.tensor_bytes["fc1.weight"] > 100
    assert found.found.bound is not None


def test_what_a_transform_loses_counts_as_lost(case: Case) -> None:
    """The bundle is judged beside the model as it came, not as the transforms left it."""
    options = case.options(transforms=Transforms(low_rank={"fc1.weight": 2}))
    with pytest.raises(UsageError, match="cannot be reached"):
        case.search(Goal(largest_divergence=0.01), options)
    assert os.listdir(case.folder) == []


def test_a_dry_run_writes_nothing_but_tells_all(case: Case) -> None:
    case.out.write_text("mine")
    found = case.search(Goal(target_size=6000), case.options(dry_run=True))
    assert not found.report.written
    assert found.found.met
    assert "target_size = 6000" in found.plan
    assert os.listdir(case.folder) == ["out.mm"]
    assert case.out.read_text() == "mine"


@pytest.mark.parametrize("name", ["out.mm", "out.mm.toml"])
@pytest.mark.usefixtures("no_trials")
def test_an_output_or_plan_that_exists_is_refused_before_the_search(case: Case, name: str) -> None:
    (case.folder / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=name):
        case.search(Goal(target_size=6000))
    assert os.listdir(case.folder) == [name]
    assert (case.folder / name).read_text() == "mine"


@pytest.mark.usefixtures("no_trials")
def test_outputs_that_would_replace_inputs_are_refused_before_the_search(case: Case) -> None:
    forced, goal, scheme = case.options(force=True), Goal(target_size=6000), read_scheme("auto")
    for out, plan in ((case.source, case.plan), (case.out, case.source), (case.out, case.out)):
        with pytest.raises(UsageError, match=r"output is the source|one file"):
            convert_within(case.source, out, goal, scheme, forced, plan)
    with pytest.raises(UsageError, match="no such folder"):
        convert_within(case.source, case.out, goal, scheme, forced, case.folder / "missing" / "plan.toml")


@pytest.mark.usefixtures("no_trials")
@pytest.mark.parametrize("goal", [Goal(), Goal(target_size=5000, largest_drop=1.0)])
def test_exactly_one_goal_is_given(case: Case, goal: Goal) -> None:
    with pytest.raises(UsageError, match="the goal of a search"):
        case.search(goal)


@pytest.mark.usefixtures("no_trials")
@pytest.mark.parametrize("name", ["qcnn", "palette-6"])
def test_a_scheme_without_a_price_cannot_be_searched(case: Case, name: str) -> None:
    mine = case.folder / "mine.toml"
    mine.write_text(f'scheme = "{name}"\n')
    with pytest.raises(UsageError, match="only the scheme auto has a price"):
        convert_within(case.source, case.out, Goal(target_size=5000), read_scheme(mine), case.options())


@pytest.mark.usefixtures("no_trials")
def test_a_drop_needs_data_and_classes_and_says_so_before_the_search(case: Case) -> None:
    for options in (ConvertOptions(), case.options(held_out=0)):
        with pytest.raises(UsageError, match=r"needs (calibration data|samples to judge on)"):
            case.search(Goal(largest_drop=1.0), options)
    unlabelled = replace(case, data=replace(case.data, classes=None))
    with pytest.raises(UsageError, match="data with classes") as caught:
        unlabelled.search(Goal(largest_drop=1.0))
    assert "--max-divergence" in str(caught.value.advice)


@pytest.mark.parametrize("target", [1, 1500])
def test_a_target_that_cannot_be_reached_is_an_error_and_leaves_nothing(case: Case, target: int) -> None:
    with pytest.raises(UsageError, match="cannot be reached"):
        case.search(Goal(target_size=target), ConvertOptions())
    assert os.listdir(case.folder) == []


def test_more_held_out_samples_than_there_are_is_an_error(case: Case) -> None:
    with pytest.raises(UsageError, match="held out"):
        case.search(Goal(largest_drop=1.0), case.options(held_out=300))


def test_the_executor_does_not_change_the_bytes_but_the_width_may(case: Case) -> None:
    content = []
    for executor in ("serial", "threads:2"):
        found = case.search(Goal(target_size=6000, executor=executor, width=2), case.options(force=True))
        content.append((case.out.read_bytes(), [e.candidate.price for e in found.found.evaluations]))
    assert content[0] == content[1]


def test_a_thorough_search_gives_single_tensors_their_own_price(case: Case) -> None:
    usual = case.search(Goal(target_size=6000))
    found = case.search(Goal(target_size=6000, thorough=True), case.options(force=True))
    assert found.found.chosen is not None
    assert usual.found.chosen is not None
    assert len(found.found.evaluations) > len(usual.found.evaluations)
    tried = {name for e in found.found.evaluations for name in e.candidate.layer_weights}
    assert "fc1.weight" in tried
    assert "fc1.bias" not in tried or 100 * found.found.chosen.outcome.tensor_bytes["fc1.bias"] >= 6000
    assert (found.found.chosen.outcome.divergence or 0) <= (usual.found.chosen.outcome.divergence or 0)
    assert case.again() == case.out.read_bytes()


def test_prices_of_calibrated_layers_have_a_unit_of_their_own(tmp_path: Path) -> None:
    auto = read_scheme("auto")
    assert auto.plan.scheme is rules.SCHEMES["auto"]
    tensor = SourceTensor("w", DType.FLOAT, (4, 4), bytes, Role.FC, "Gemm")
    assert auto.plan.rule(tensor, 1).price == DEFAULT_PRICE
    assert auto.calibrated.plan.rule(tensor, 1).price == CALIBRATED_PRICE
    assert auto.priced(Candidate(0.5)).calibrated.plan.rule(tensor, 1).price == 0.5
    plan = tmp_path / "plan.toml"
    plan.write_text('scheme = "auto"\nprice = 0.3\n')
    assert read_scheme(plan).calibrated.plan.rule(tensor, 1).price == 0.3
    assert (read_scheme(plan).plan.name, read_scheme("fp16").calibrated.plan.name) == ("plan", "fp16")
