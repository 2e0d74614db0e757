"""ccv SQLite: convnets of all generations, Klaus's PNG layout, nnc tensors.

``database`` opens SQLite files, ``schema`` names their tables, ``layers`` checks the rows of a convnet, ``convnet``
makes its graph, ``preprocessing`` its input, ``klaus`` and ``png`` read codes from pictures, ``store`` and
``tensors`` nnc's tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mobilemodel.errors import MobileModelError, UnsupportedSourceError, UsageError
from mobilemodel.model import NO_OPTIONS, Model, SourceOptions
from mobilemodel_converters.ccv import schema
from mobilemodel_converters.ccv.database import Database, is_sqlite
from mobilemodel_converters.onnx import OnnxConverter


class CcvConverter:
    """The converter ``ccv``: one SQLite file; or an nnc tensor store and the ONNX model that has its graph."""

    name = "ccv"
    description = "ccv SQLite: convnets of all generations, Klaus's PNG layout; nnc tensors beside an ONNX model"
    suffixes: tuple[str, ...] = (".sqlite3",)
    options: tuple[str, ...] = ("pictures",)

    def sniff(self, paths: Sequence[Path]) -> bool:
        """Whether one of the files is an SQLite database: what it is a database of, ``load`` finds out and says."""
        return 0 < len(paths) <= 2 and any(is_sqlite(path) for path in paths)

    def load(self, paths: Sequence[Path], options: SourceOptions = NO_OPTIONS) -> Model:
        """Read a convnet, or an ONNX model whose values lie in an nnc tensor store.

        Raises MalformedSourceError, UnsupportedSourceError for a database that is no convnet and has no graph,
        LimitExceededError, UsageError for files that do not go together.
        """
        databases = [path for path in paths if is_sqlite(path)]
        graphs = [path for path in paths if path not in databases]
        if len(databases) > 1 or len(graphs) > 1:
            raise UsageError("a ccv model is one SQLite file, or a tensor store and its ONNX model",
                             file=str(paths[0]), found=f"{len(paths)} files")  # fmt: skip
        if not databases:
            raise UnsupportedSourceError("not an SQLite database", file=str(paths[0]))
        database = Database(databases[0])
        try:
            return _load(database, graphs, options)
        except BaseException as error:
            database.close()
            if isinstance(error, MobileModelError):
                error.within(file=str(database.path))
            raise


def _load(database: Database, graphs: Sequence[Path], options: SourceOptions) -> Model:
    tables = database.tables
    if schema.LAYER_PARAMS in tables:
        from mobilemodel_converters.ccv.convnet import load_convnet

        if graphs:
            raise UsageError("a ccv convnet has a graph of its own", file=str(database.path),
                             advice=f"Leave {graphs[0].name} out.")  # fmt: skip
        return load_convnet(database, options)
    if options.pictures:
        raise UsageError("--png is for convnets: this database is none", file=str(database.path))
    if schema.TENSORS in tables:
        return _load_store(database, graphs)
    if schema.CASCADE_PARAMS in tables:
        raise UnsupportedSourceError("a ccv SURF cascade, a detector of another kind, is no convnet",
                                     found=database.listing())  # fmt: skip
    raise UnsupportedSourceError(
        "an SQLite database that is neither a ccv convnet nor a tensor store",
        expected=f"a table {schema.LAYER_PARAMS} or {schema.TENSORS}", found=database.listing(),
    )  # fmt: skip


def _load_store(database: Database, graphs: Sequence[Path]) -> Model:
    from mobilemodel_converters.ccv.tensors import with_store

    if not graphs:
        raise UnsupportedSourceError(
            "a ccv tensor store has no topology", file=str(database.path),
            advice="Give the ONNX model too: convert model.onnx tensors.sqlite3 out.mm",
        )  # fmt: skip
    model = OnnxConverter().load(graphs)
    try:
        return with_store(model, database)
    except BaseException:
        model.close()
        raise
