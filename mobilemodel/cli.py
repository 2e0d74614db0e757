"""The command line: arguments, printing, exit codes; everything else is elsewhere."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from mobilemodel.errors import MobileModelError, escape
from mobilemodel.listing import list_bundle, list_tensor, listing_json

EXIT_CODES = """\
exit codes: 0 done; 1 a check said no, or an output could not be written; 2 wrong usage; 3 malformed input;
4 well formed but not supported; 130 interrupted.  Data go to stdout, everything else to stderr."""
EXAMPLES = """\
examples:
  mobilemodel convert alexnet.onnx out.mm --scheme mixed-4-8
  mobilemodel inspect out.mm
  mobilemodel verify out.mm --against alexnet.onnx
  mobilemodel export out.mm again.onnx
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Bad input never ends in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except MobileModelError as error:
        return _fail(f"{error}", error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was changed", 130)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _fail("not enough memory; nothing was changed", 1)
    except OSError as error:
        return _fail(f"{error.strerror or error}: {escape(str(error.filename or ''))}", 1)


def _fail(message: str, code: int) -> int:
    print(f"mobilemodel: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    from mobilemodel import FORMAT_VERSION, __version__

    parser = argparse.ArgumentParser(
        "mobilemodel", description="Small bundles of trained networks for phones.", epilog=f"{EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    version = f"mobilemodel {__version__}, format {FORMAT_VERSION}, codecs stored zlib png zstd"
    parser.add_argument("--version", "-V", action="version", version=version)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_convert(commands)
    _add_inspect(commands)
    _add_verify(commands)
    _add_export(commands)
    listing = _command(commands, "converters", "list the source formats", _converters)
    listing.add_argument("--json", action="store_true", help="as JSON")
    return parser


Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def _command(
    commands: Commands[argparse.ArgumentParser], name: str, what: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def _add_convert(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "convert", "convert a trained network to a bundle", _convert)
    add = parser.add_argument
    add("sources", nargs="+", metavar="SRC", help="the model's file or files")
    add("out", metavar="OUT", help="the bundle to write, such as out.mm")
    add("--scheme", default="mixed-4-8", metavar="NAME|FILE.toml",
        help="lossless, fp16, int8, kmeans-8|4|2|1, mixed-4-8 (default), palette-8|6|4, or a plan")  # fmt: skip
    add("--codec", choices=("auto", "zstd", "png"), default="auto", help="what packs the codes")
    add("--profile", choices=("full", "baseline"), default="full", help="baseline: readers need no zstd")
    add("--from", dest="converter", metavar="FORMAT", help="the source's format, where its content does not tell")
    add("--dry-run", action="store_true", help="report, and write nothing")
    add("--json", action="store_true", help="the report as JSON")
    add("--force", action="store_true", help="replace an existing output")
    add("--labels", metavar="FILE", help="class names, one for each line")
    add("--mean", metavar="V|V,V,V|FILE.npy", help="subtracted from pixels of 0 to 255")
    add("--scale", metavar="S|S,S,S", help="multiplies what is left")
    add("--channels", choices=("rgb", "bgr", "grey"), help="colour order of the input (default rgb)")
    add("--resize", metavar="MODE", help="short:256, fit:320x240 or 256x256, with :kernel after it")
    add("--crop", metavar="SIZE", help="227, or height x width as 224x192, centred")
    add("--licence", default="", metavar="SPDX", help="licence of the model")
    add("--description", default="", metavar="TEXT", help="free text kept in the bundle")


def _add_inspect(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "inspect", "list a bundle, or one of its tensors", _inspect)
    parser.add_argument("bundle", metavar="OUT")
    parser.add_argument("tensor", nargs="?", metavar="TENSOR")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_verify(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "verify", "read every byte of a bundle, and compare it with its source", _verify)
    parser.add_argument("bundle", metavar="OUT")
    parser.add_argument("--against", nargs="+", default=[], metavar="SRC", help="the model that it was made from")
    parser.add_argument("--from", dest="converter", metavar="FORMAT", help="the source's format")
    parser.add_argument("--tolerance", type=_tolerance, metavar="X",
                        help="largest difference of an output relative to its largest value")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="as JSON")


def _tolerance(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise ValueError
    return value


def _add_export(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "export", "write a bundle's content as a plain file", _export)
    parser.add_argument("bundle", metavar="OUT")
    parser.add_argument("file", metavar="FILE", help="ends in .onnx, .npz or .safetensors")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def _convert(options: argparse.Namespace) -> int:
    from pathlib import Path

    from mobilemodel.audit.report import report_json, report_text
    from mobilemodel.pipeline import ConvertOptions, PreprocessingOptions, convert
    from mobilemodel.pipeline.preprocessing import read_labels

    wanted = PreprocessingOptions(options.mean, options.scale, options.channels, options.resize, options.crop)
    step, mean_picture = wanted.message() if wanted.given else (None, b"")
    labels = read_labels(Path(options.labels)) if options.labels else ()
    with _Progress() as progress:
        report = convert(options.sources, options.out, scheme=options.scheme, options=ConvertOptions(
            codec=options.codec, profile=options.profile, force=options.force, dry_run=options.dry_run,
            converter=options.converter, preprocessing=step, mean_picture=mean_picture, labels=labels,
            licence=options.licence, description=options.description, progress=progress.show,
        ))  # fmt: skip
    print(report_json(report) if options.json else report_text(report))
    if options.dry_run:
        print("dry run: nothing was written", file=sys.stderr)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    import mobilemodel

    with mobilemodel.open(options.bundle) as bundle:
        tensor = bundle[options.tensor] if options.tensor is not None else None
        if options.json:
            print(json.dumps(listing_json(bundle, tensor), sort_keys=True, indent=2))
        else:
            print(list_bundle(bundle) if tensor is None else list_tensor(tensor))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    import mobilemodel
    from mobilemodel.pipeline import verify

    with mobilemodel.open(options.bundle) as bundle:
        found = verify(bundle, options.against, converter=options.converter, tolerance=options.tolerance)
    if options.json:
        print(json.dumps({"schema": "mobilemodel.verify/1", **asdict(found)}, sort_keys=True, indent=2))
        return 0
    print(f"{escape(options.bundle)}: whole; {found.tensors} tensors decode")
    for check in found.checks:
        state = "identical" if check.identical else f"{check.sqnr_db:.2f} dB" if check.sqnr_db is not None else "equal"
        print(f"  {escape(check.name)}: {state}")
    for output in found.outputs:
        state = "identical" if output.identical else f"largest difference {output.largest_absolute:.3g}"
        print(f"  output {escape(output.output)}: {state} ({output.largest_relative:.3g} of its largest value)")
    if found.outputs_skipped:
        print(f"outputs were not compared: {escape(found.outputs_skipped, 400)}", file=sys.stderr)
    return 0


def _export(options: argparse.Namespace) -> int:
    import mobilemodel
    from mobilemodel.exporter import export

    with mobilemodel.open(options.bundle) as bundle:
        for path in export(bundle, options.file, force=options.force):
            print(escape(path, 4096))
    return 0


def _converters(options: argparse.Namespace) -> int:
    from mobilemodel_converters import registrations

    rows = []
    for registration in registrations():
        converter = registration.load()
        rows.append({
            "name": registration.name, "suffixes": list(converter.suffixes), "provider": registration.provider,
            "description": converter.description,
        })  # fmt: skip
    if options.json:
        print(json.dumps({"schema": "mobilemodel.converters/1", "converters": rows}, sort_keys=True, indent=2))
        return 0
    for row in rows:
        print(f"{row['name']:<18}{' '.join(row['suffixes']):<14}{row['provider']:<14}{row['description']}")
    return 0


class _Progress:
    """One line on a terminal's stderr, from two seconds of work on; nothing elsewhere."""

    def __init__(self) -> None:
        self._from = time.monotonic() + 2
        self._shown = False
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, what: str, done: int, total: int) -> None:
        """Say what is being done and how far it is, in bytes."""
        if not self._terminal or time.monotonic() < self._from:
            return
        share = f" {100 * done // total} %" if total else ""
        print(f"\r\x1b[K{escape(what, 60)}{share}", end="", file=sys.stderr, flush=True)
        self._shown = True


def run_and_exit() -> NoReturn:
    """Entry point of ``python -m mobilemodel``."""
    sys.exit(main())
