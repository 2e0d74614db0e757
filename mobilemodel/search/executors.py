"""Where candidates are evaluated: here, in threads, in processes, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from mobilemodel.errors import CheckFailedError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    import distributed

P = ParamSpec("P")
T = TypeVar("T")
KINDS = "serial, threads:N, processes:N or dask://HOST:PORT"
LARGEST_COUNT = 1024
_PATIENCE = 10
"""seconds to wait for a scheduler"""
_ADDRESS = re.compile(r"dask://([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")


class SerialExecutor(Executor):
    """Runs each job in the caller, at once."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn`` now; the future holds what it returned or raised."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def open_executor(spec: str) -> Iterator[Executor]:
    """Open the executor that ``spec`` names: ``serial``, ``threads:N``, ``processes:N`` or ``dask://HOST:PORT``.

    Jobs for processes and for Dask must be picklable. Processes are spawned, so that a script that opens them needs
    its ``if __name__ == "__main__"``. A Dask scheduler is waited for 10 seconds.

    Raises UsageError for another spec or a scheduler that does not answer, MissingDependencyError without
    ``distributed``, and for a cluster that fails within the block CheckFailedError.

    >>> with open_executor("threads:2") as executor:
    ...     executor.submit(pow, 2, 10).result()
    1024
    """
    kind, _, count = spec.partition(":")
    if spec == "serial":
        yield SerialExecutor()
    elif kind == "threads":
        with ThreadPoolExecutor(_count(count, spec)) as threads:
            yield threads
    elif kind == "processes":
        with _processes(_count(count, spec)) as processes:
            yield processes
    elif kind == "dask":
        with _dask(_address(spec)) as cluster:
            yield cluster
    else:
        raise UsageError("no such executor", expected=KINDS, found=spec)


def _count(text: str, spec: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= LARGEST_COUNT):
        raise UsageError("executor", expected=f"a number of workers from 1 to {LARGEST_COUNT}", found=spec)
    return int(text)


def _processes(count: int) -> ProcessPoolExecutor:
    try:
        # Forking a process that has threads, as ONNX Runtime's, can deadlock.
        return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    except ValueError as error:
        raise UsageError(f"executor: {error}", found=f"processes:{count}") from None


def _address(spec: str) -> str:
    found = _ADDRESS.fullmatch(spec)
    if found is None or not 1 <= int(found[2]) <= 65_535:
        raise UsageError("executor", expected="dask://HOST:PORT", found=spec)
    return f"tcp://{found[1]}:{found[2]}"


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        import distributed
        from distributed.comm import CommClosedError
    except ImportError:
        raise MissingDependencyError("dask:// needs 'distributed'",
                                     advice="Install it: pip install 'mobilemodel[dask]'") from None  # fmt: skip
    try:
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        advice = "Start it first: dask scheduler, and dask worker on each machine."
        raise UsageError("the Dask scheduler does not answer", found=f"{address}: {error}", advice=advice) from None
    with client:
        _check_workers(client, address)
        try:
            # pure: a job would be named by a hash of all that it holds.
            yield client.get_executor(pure=False)
        except (distributed.KilledWorker, CommClosedError) as error:
            raise CheckFailedError(f"the Dask cluster failed: {error}") from None


def _check_workers(client: distributed.Client, address: str) -> None:
    """Raise UsageError where there is no worker, or one without this version of mobilemodel."""
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except TimeoutError:
        advice = "Start some: dask worker HOST:PORT."
        raise UsageError("the Dask scheduler has no worker", found=address, advice=advice) from None
    for worker, version in client.run(_version, on_error="return").items():
        if version != _version():
            raise UsageError("a Dask worker has another mobilemodel", expected=_version(),
                             found=f"{version} on {worker}", advice="Install the same on every machine.")  # fmt: skip


def _version() -> str:
    from mobilemodel import __version__

    return __version__
