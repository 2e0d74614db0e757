"""What all tests share: hypothesis profiles and the folder of real models."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from mobilemodel.codecs import Family
from mobilemodel.container.writer import Spool, write_container
from mobilemodel.encodings import dense
from mobilemodel.encodings.payloads import PayloadWriter
from mobilemodel.layout import elements_of
from mobilemodel.v1 import bundle_pb2 as pb

if TYPE_CHECKING:
    from onnx import ModelProto

# The tests are about the Python reader, unless they say otherwise.
os.environ["MOBILEMODEL_NATIVE"] = ""
# Some tests import it before the package does, which says the same (mobilemodel.runtime.session.onnxruntime).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

settings.register_profile("ci", derandomize=True, max_examples=40, deadline=None)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the zoo, so that it can be chosen and left out."""
    for item in items:
        if "zoo" in getattr(item, "fixturenames", ()):
            item.add_marker("zoo")


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


BundleMaker = Callable[..., bytes]


@pytest.fixture(scope="session")
def make_bundle() -> BundleMaker:
    """Turns an ONNX model into the bytes of a bundle: ``make_bundle(model, names of initializers, change)``."""
    return bundle_of


def bundle_of(
    model: ModelProto, names: Iterable[str], change: Callable[[pb.Manifest], None] = lambda manifest: None
) -> bytes:
    """A bundle whose graph holds the named initializers outside, unquantized; ``change`` may alter its manifest."""
    from onnx import TensorProto, numpy_helper

    graph = type(model).FromString(model.SerializeToString())
    manifest = pb.Manifest(spec_major=1, spec_minor=0)
    stored = {item.name: item for item in graph.graph.initializer}
    with contextlib.closing(Spool()) as spool, io.BytesIO() as out:
        writer = PayloadWriter(spool, Family.BASELINE)
        for name in sorted(names):
            item = stored[name]
            raw = item.raw_data or numpy_helper.to_array(item).tobytes()
            tensor = manifest.tensors.add(name=name, dtype=item.data_type, dims=item.dims)
            dense.encode(writer, tensor.dense, raw, item.data_type, elements_of(tensor.dims))
            outside = TensorProto(name=name, data_type=item.data_type, dims=item.dims, data_location="EXTERNAL")
            for key, value in (("location", "mobilemodel"), ("offset", "0"), ("length", str(len(raw)))):
                outside.external_data.add(key=key, value=value)
            item.CopyFrom(outside)
        writer.flush()
        manifest.graph = writer.add_bytes(graph.SerializeToString())
        manifest.inputs.extend(pb.ValueInfo(name=value.name) for value in graph.graph.input)
        change(manifest)
        write_container(out, manifest, spool)
        return out.getvalue()
