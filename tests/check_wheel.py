"""Check what a wheel and an sdist hold: ``python tests/check_wheel.py X.whl X.tar.gz``."""

from __future__ import annotations

import sys
import tarfile
import zipfile

REQUIRED = (
    "mobilemodel/py.typed",
    "mobilemodel/v1/bundle.proto",
    "mobilemodel/v1/bundle_pb2.py",
    "mobilemodel/v1/bundle_pb2.pyi",
    "mobilemodel_converters/py.typed",
    "mobilemodel_converters/onnx/__init__.py",
)
SOURCES = ("proto/mobilemodel/v1/bundle.proto", "converters/mobilemodel_converters/onnx/__init__.py", "LICENSE")
TOP_LEVEL = ("mobilemodel", "mobilemodel_converters")


def main(wheel: str, sdist: str) -> int:
    """Say what is missing or too much; 0 when nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    wrong = [f"missing from the wheel: {name}" for name in REQUIRED if name not in names]
    for name in names:
        top = name.split("/")[0]
        if top not in TOP_LEVEL and not top.endswith(".dist-info"):
            wrong.append(f"does not belong into the wheel: {name}")
    with tarfile.open(sdist) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    wrong += [f"missing from the sdist: {name}" for name in SOURCES if name not in inside]
    print("\n".join(wrong) or f"{len(names)} files in the wheel, {len(inside)} in the sdist: as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
