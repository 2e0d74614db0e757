"""Executors by name: in the caller, in threads, in processes and on a Dask cluster the result is always the same."""

from __future__ import annotations

import math
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from mobilemodel.errors import CheckFailedError, MissingDependencyError, PlanError, UsageError
from mobilemodel.search import Candidate, Found, Outcome, open_executor, search_size

TARGET = 1_000_000


@dataclass(frozen=True)
class Job:
    """What is sent to the workers: a frozen dataclass with ``__call__``."""

    scale: float = 2e4
    broken: bool = False
    deadly: bool = False

    def __call__(self, candidate: Candidate) -> Outcome:
        if self.deadly:
            os._exit(3)
        if self.broken:
            raise PlanError("no such scheme", expected="auto", found="x", advice="Take auto.")
        return Outcome(int(self.scale * candidate.price**-0.6))


def found(spec: str, job: Job = Job()) -> Found:
    with open_executor(spec) as executor:
        return search_size(job, TARGET, first_price=0.1, width=2, executor=executor)


@pytest.mark.parametrize("spec", ["serial", "threads:1", "threads:3"])
def test_every_executor_finds_the_same(spec: str) -> None:
    expected = search_size(Job(), TARGET, first_price=0.1, width=2)
    assert expected.met
    assert found(spec) == expected


def test_processes_find_the_same_and_hand_errors_back() -> None:
    with open_executor("processes:1") as executor:
        alone = search_size(Job(), TARGET, first_price=0.1, width=2)
        assert search_size(Job(), TARGET, first_price=0.1, width=2, executor=executor) == alone
        with pytest.raises(PlanError) as caught:
            search_size(Job(broken=True), TARGET, first_price=0.1, executor=executor)
        assert str(caught.value) == "no such scheme: expected auto, found x [PLAN]\n  Take auto."
        with pytest.raises(CheckFailedError, match="a worker ended before its candidate was evaluated"):
            search_size(Job(deadly=True), TARGET, first_price=0.1, executor=executor)


def test_the_first_error_in_order_is_raised_and_the_rest_is_cancelled() -> None:
    class Fails:
        def __call__(self, candidate: Candidate) -> Outcome:
            raise UsageError(f"{candidate.price:g}")

    for spec in ("serial", "threads:1", "threads:2"):
        with open_executor(spec) as executor, pytest.raises(UsageError, match=r"^0.1 "):
            search_size(Fails(), TARGET, first_price=0.1, width=4, executor=executor)


def test_what_is_sent_is_picklable() -> None:
    candidate = Candidate(0.1, {"fc6": 2.0})
    assert pickle.loads(pickle.dumps(candidate)) == candidate
    outcome = Outcome(1, 0.1, 0.2, 0.3, {"fc6": 7})
    assert pickle.loads(pickle.dumps(outcome)) == outcome


@pytest.mark.parametrize(
    "spec",
    [
        "", "thread:2", "threads", "threads:", "threads:0", "threads:-1", "threads:1025", "threads:²", "threads:2:2",
        "processes:x", "serial:2", "dask", "dask://", "dask://host", "dask://host:0", "dask://host:65536",
        "dask:host:1", "dask://host:1/x", "dask://ho st:1", "tcp://host:1",
    ],
)  # fmt: skip
def test_other_names_are_refused(spec: str) -> None:
    with pytest.raises(UsageError), open_executor(spec):
        pytest.fail("opened")


def test_dask_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match="mobilemodel\\[dask\\]"), open_executor("dask://localhost:8786"):
        pytest.fail("opened")


# Dask closes its sockets and its event loop late, in the hands of the garbage collector.
dask = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """HOST:PORT of a scheduler with one worker in this process."""
    distributed = pytest.importorskip("distributed", reason="no 'distributed': pip install 'mobilemodel[dask]'")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0",
                                  host="127.0.0.1", protocol="tcp") as local:  # fmt: skip
        yield local.scheduler_address.removeprefix("tcp://")


@dask
def test_a_dask_cluster_finds_the_same(cluster: str) -> None:
    assert found(f"dask://{cluster}") == search_size(Job(), TARGET, first_price=0.1, width=2)


@dask
def test_errors_come_back_from_a_dask_cluster(cluster: str) -> None:
    with pytest.raises(PlanError, match="Take auto"):
        found(f"dask://{cluster}", Job(broken=True))


@dask
def test_workers_of_another_version_are_refused(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilemodel.search import executors

    def version() -> str:
        return "2" if threading.current_thread() is threading.main_thread() else "1"

    monkeypatch.setattr(executors, "_version", version)
    with pytest.raises(UsageError, match="a Dask worker has another mobilemodel: expected 2, found 1 on"):
        found(f"dask://{cluster}")


@dask
def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from mobilemodel.search import executors

    monkeypatch.setattr(executors, "_PATIENCE", 0.2)
    with pytest.raises(UsageError, match=r"does not answer.*\n.*dask scheduler"), open_executor("dask://127.0.0.1:9"):
        pytest.fail("opened")


@dask
def test_a_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    from mobilemodel.search import executors

    monkeypatch.setattr(executors, "_PATIENCE", 0.5)
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0", host="127.0.0.1",
                                  protocol="tcp") as local:  # fmt: skip
        address = local.scheduler_address.removeprefix("tcp://")
        with pytest.raises(UsageError, match="has no worker"), open_executor(f"dask://{address}"):
            pytest.fail("opened")


def test_a_job_is_what_it_says() -> None:
    assert Job()(Candidate(1.0)).size == 20_000
    assert math.isclose(Job()(Candidate(2.0)).size, 20_000 * 2**-0.6, rel_tol=1e-4)
