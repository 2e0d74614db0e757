"""convert(): import, transform, plan, fit to data, quantize and encode, write, read back and compare, name the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mobilemodel.audit.report import Report
from mobilemodel.bundle import Bundle
from mobilemodel.calibration.samples import Samples
from mobilemodel.errors import MobileModelError, OutputError, UsageError
from mobilemodel.files import OutputFile, same_file
from mobilemodel.model import Model
from mobilemodel.pipeline.conversion import Conversion, new_manifest
from mobilemodel.pipeline.fitting import Fitted, fit, make_samples
from mobilemodel.pipeline.options import DEFAULT_OPTIONS, ConvertOptions
from mobilemodel.pipeline.recipes import Scheme, read_scheme
from mobilemodel.pipeline.transforming import merged, transform
from mobilemodel.quantize import rules
from mobilemodel.writer import BundleWriter

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Judge = Callable[["Prepared", Bundle], None]
"""looks at a bundle before it is named, beside the model that it was made from"""
NOTHING_FITTED = Fitted({}, ())


def convert(
    source: Paths,
    out: str | os.PathLike[str],
    *,
    scheme: str | os.PathLike[str] = rules.DEFAULT_SCHEME,
    options: ConvertOptions = DEFAULT_OPTIONS,
) -> Report:
    """Convert a model to a bundle and report what was done to each tensor.

    ``source`` is one path, or several for formats of more than one file; ``scheme`` a scheme's name or a plan's
    ``.toml`` file. With ``options.fitting`` the layers that the scheme gives a price are fitted to calibration data.
    The bundle is read back and compared before it appears at ``out``; whatever fails leaves ``out`` as it was.

    Raises a MobileModelError: UsageError, MalformedSourceError, UnsupportedSourceError, LimitExceededError,
    OutputError, OutputExistsError, PlanError.
    """
    return convert_scheme(source, out, read_scheme(scheme), options)


def convert_scheme(
    source: Paths, out: str | os.PathLike[str], scheme: Scheme, options: ConvertOptions, judge: Judge | None = None
) -> Report:
    """``convert`` by a scheme that was read; ``judge`` sees the finished bundle before it is named."""
    baseline = options.baseline
    paths = source_paths(source)
    target = Path(out)
    refuse_overwriting(paths, target)
    with OutputFile(out, force=options.force or options.dry_run) as output:
        options.progress("reading", 0, 0)
        with _loaded(paths, target, options) as model:
            prepared = prepare(model, scheme, options)
            fitted = prepared.fitted()
            with BundleWriter(output.folder, baseline=baseline) as writer:
                conversion = Conversion(prepared.model, prepared.scheme.plan, options, output, writer, fitted.chosen,
                                        (*prepared.notes, *fitted.notes))  # fmt: skip
                return conversion.run(None if judge is None else lambda bundle: judge(prepared, bundle))


def source_paths(source: Paths) -> list[Path]:
    """The source's files. Raises UsageError for none."""
    paths = [Path(p) for p in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    if not paths:
        raise UsageError("no source to convert")
    return paths


@contextmanager
def _loaded(paths: list[Path], target: Path, options: ConvertOptions) -> Iterator[Model]:
    from mobilemodel_converters import load_model

    model = load_model(paths, options.converter, options.source)
    try:
        # A source may be more than was named: pictures beside a database, a folder's files, external data.
        refuse_overwriting([source.path for source in model.sources if source.path is not None], target)
        yield model
    except MobileModelError as error:
        raise error.within(file=str(target) if isinstance(error, OutputError) else str(paths[0])) from None
    finally:
        model.close()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model after its transforms, with what is to be done to it."""

    source: Model
    """before them"""
    model: Model
    scheme: Scheme
    options: ConvertOptions
    samples: Samples | None
    """to fit to"""
    held_out: Samples | None
    """to judge on; never mirrored"""
    notes: tuple[str, ...]

    def fitted(self) -> Fitted:
        """What the data say; nothing without data."""
        if self.samples is None or self.options.fitting is None:
            return NOTHING_FITTED
        return fit(self.model, self.scheme.plan, self.samples, self.options.fitting)


def prepare(model: Model, scheme: Scheme, options: ConvertOptions) -> Prepared:
    """Read the data as the model takes them, and transform the model's graph."""
    fitting = options.fitting
    if scheme.recipe.calibration is not None and fitting is None:
        raise UsageError("the plan was made with calibration data", file=scheme.file,
                         advice="Give them with --calibration, or take [calibration] out of the plan.")  # fmt: skip
    samples = held_out = None
    if fitting is not None:
        scheme = scheme.calibrated
        fit_data, held_data = fitting.data.split(fitting.held_out)
        manifest = new_manifest(model, scheme.plan, options)
        step = manifest.preprocessing[-1] if manifest.preprocessing else None
        picture = options.mean_picture if options.preprocessing is not None else model.mean_picture
        samples = make_samples(model, step, picture, fit_data, mirror=fitting.mirror)
        held_out = replace(samples.plain(), data=held_data, fixed=None) if held_data is not None else None
    wanted = merged(scheme.recipe.transforms, options.transforms)
    done = transform(model, wanted, samples)
    return Prepared(model, done.model, scheme, options, samples, held_out, done.notes)


def refuse_overwriting(sources: Sequence[Path], target: Path) -> None:
    """Raise UsageError where the output is one of the sources."""
    if any(same_file(path, target) for path in sources):
        raise UsageError("the output is the source", file=str(target), advice="Name another output.")
