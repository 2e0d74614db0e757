"""What all tests share: hypothesis profiles and the folder of real models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, max_examples=40, deadline=None)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of real models and data: MOBILEMODEL_ZOO, else ``../shared/zoo`` beside the checkout.

    A test that needs it is skipped where neither exists, and fails when MOBILEMODEL_REQUIRE names ``zoo``.
    """
    named = os.environ.get("MOBILEMODEL_ZOO")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "zoo"
    if not folder.is_dir():
        reason = "no folder of real models: set MOBILEMODEL_ZOO"
        if "zoo" in os.environ.get("MOBILEMODEL_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
