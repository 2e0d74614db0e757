"""The shape of the house: who may import whom, how long a module and a function may be, what is loaded when."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = frozenset((
    "model", "errors", "limits", "dtypes", "graphs", "wire", "layout", "files", "png_filters", "v1", "mobilemodel",
))  # fmt: skip
# Part -> what it may import beside itself and the base (CONTRIBUTING.md). ``bundle`` also writes: writer.py.
ALLOWED = {
    "base": set(),
    "codecs": set(),
    "container": set(),
    "encodings": {"codecs"},
    "native": set(),
    "bundle": {"container", "encodings", "native"},
    "runtime": {"bundle"},
    "audit": {"bundle", "container", "encodings"},
    "quantize": {"encodings", "runtime"},
    "transforms": set(),
    "gradients": {"runtime"},
    "calibration": {"quantize", "runtime", "encodings"},
    "search": set(),
    "converters": set(),
    "pipeline": {
        "converters", "transforms", "gradients", "calibration", "search", "quantize", "audit", "bundle", "runtime"
    },
    "export": {"bundle", "converters", "encodings", "codecs"},
    "listing": {"bundle", "audit", "codecs", "pipeline", "runtime"},
    "cli": {"pipeline", "search", "export", "bundle", "audit", "runtime", "listing"},
    # The package's face hands on what users hold, lazily.
    "face": {"pipeline", "export", "bundle", "runtime"},
    # Writes a bundle as the typed JSON of the vectors.
    "dump": {"bundle", "container", "encodings", "codecs"},
}
PARTS = {
    "writer": "bundle", "exporter": "export", "ccv_export": "export", "arguments": "cli", "converting": "cli",
    "__main__": "cli", "__init__": "face", "evaluation_text": "listing",
}  # fmt: skip
HEAVY = ("onnx", "onnxruntime", "PIL", "scipy", "sklearn", "distributed", "tomli_w", "threadpoolctl")


def _modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and path of every module that is shipped, but the generated ones."""
    for source in (ROOT, ROOT / "converters"):
        for package in ("mobilemodel", "mobilemodel_converters"):
            for path in sorted((source / package).rglob("*.py")):
                if not path.stem.endswith("_pb2"):
                    yield ".".join(path.relative_to(source).with_suffix("").parts), path


MODULES = dict(_modules())


def part_of(module: str) -> str:
    """The part of the house that a module belongs to."""
    names = module.split(".")
    if names[0] == "mobilemodel_converters":
        return "converters"
    if len(names) == 1:
        return "base"  # the version number; what else the face holds is never imported from within
    part = PARTS.get(names[1], names[1])
    return "base" if part in BASE else part


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module of ours that is imported, wherever the import stands, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from mobilemodel import layout` names a module, `from mobilemodel import __version__` does not.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in MODULES or f"{name}.__init__" in MODULES else str(node.module) for name in inner]
        else:
            continue
        for name in found:
            if name.split(".")[0] in ("mobilemodel", "mobilemodel_converters"):
                yield name, node.lineno


def test_all_parts_are_in_the_table() -> None:
    assert {part_of(module) for module in MODULES} <= set(ALLOWED)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    part = part_of(module)
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    for name, line in imports(tree):
        wanted = part_of(name)
        allowed = wanted in ALLOWED[part] | {part, "base"}
        assert allowed, f"{module}:{line} imports {name}: {part} must not know {wanted}"


def test_the_table_has_no_cycle() -> None:
    known: set[str] = {"base"}
    waiting = dict(ALLOWED)
    while waiting:
        ready = [part for part, needs in waiting.items() if needs <= known]
        assert ready, f"a cycle among {sorted(waiting)}"
        known.update(ready)
        for part in ready:
            del waiting[part]


def test_the_walk_finds_imports_in_functions() -> None:
    tree = ast.parse("def f():\n    from mobilemodel import layout\n    import mobilemodel.cli\n    import numpy\n")
    assert list(imports(tree)) == [("mobilemodel.layout", 2), ("mobilemodel.cli", 3)]


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_are_imported_in_functions_only(module: str) -> None:
    for node in ast.parse(MODULES[module].read_text("utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & set(HEAVY)


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_are_short(module: str) -> None:
    text = MODULES[module].read_text("utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{module}: {node.name} has {length} lines"


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples", "readers"])
def test_other_files_are_short_too(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 400, path.relative_to(ROOT)


def test_no_machine_paths_in_tracked_files() -> None:
    """No folder of a developer's machine, and no address of a package registry but in prose about licences."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing is tracked")
    folders = rb"(?<![\w.*])/(?:home|Users|root|tmp|work|opt)/\w+|[A-Z]:\\\\Users"
    forbidden = re.compile(folders + rb"|--index-url|--extra-index")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".proto", ".json", ".yml", ".cfg", "") and path.is_file():
            if path == Path(__file__):
                continue
            found = forbidden.search(path.read_bytes())
            assert found is None, f"{name}: {found.group()!r}" if found else ""


def _loaded(code: str, *arguments: str) -> set[str]:
    """The modules that are loaded after ``code`` has run in a fresh interpreter."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "converters")])}
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return {name.split(".")[0] for name in found.stdout.splitlines()[-1].split()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    import mobilemodel as mm

    out = tmp_path_factory.mktemp("layering") / "digits.mm"
    mm.convert(ROOT / "examples" / "digits" / "model.onnx", out)
    return str(out)


READING = [
    "import mobilemodel",
    "import mobilemodel, sys\nwith mobilemodel.open(sys.argv[1]) as b: [t.stored_bytes for t in b.values()]",
    "import mobilemodel, sys\nwith mobilemodel.open(sys.argv[1]) as b: [t.numpy() for t in b.values()]",
    "import sys\nfrom mobilemodel import cli\ncli.main(['inspect', sys.argv[1]])",
    "import sys\nfrom mobilemodel import cli\ncli.main(['inspect', sys.argv[1], 'fc6.weight', '--json'])",
]


@pytest.mark.parametrize("code", READING)
def test_reading_loads_nothing_heavy(code: str, bundle: str) -> None:
    loaded = _loaded(code, bundle)
    assert "mobilemodel" in loaded
    assert not loaded & {*HEAVY, "mobilemodel_converters"}


def test_verifying_would_be_noticed(bundle: str) -> None:
    assert "onnx" in _loaded("import sys\nfrom mobilemodel import cli\ncli.main(['verify', sys.argv[1]])", bundle)
