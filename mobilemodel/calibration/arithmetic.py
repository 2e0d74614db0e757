"""Arithmetic whose bits do not depend on the machine's number of cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mobilemodel.errors import MissingDependencyError


@contextmanager
def one_thread() -> Iterator[None]:
    """Let matrix libraries work in one thread: how they split sums among several would change the last bits.

    Raises MissingDependencyError without scipy or threadpoolctl.
    """
    try:
        import scipy.linalg  # noqa: F401 - its libraries have to be there before they are told
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise MissingDependencyError(
            f"calibration needs {error.name or 'scipy and threadpoolctl'}",
            advice='Install it with: pip install "mobilemodel[calibration]"',
        ) from None
    with threadpool_limits(1, user_api="blas"):
        yield
