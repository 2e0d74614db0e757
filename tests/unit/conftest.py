"""What the unit tests share."""

from __future__ import annotations

import pytest

from tests import caffe_files


@pytest.fixture(autouse=True)
def same_values() -> None:
    """Each test draws the same numbers, whatever ran before it."""
    caffe_files.begin_again()
