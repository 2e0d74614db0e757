"""The command line: arguments, printing, exit codes; everything else is elsewhere."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from mobilemodel.arguments import Command, command_line, source_options
from mobilemodel.errors import MobileModelError, UsageError, escape

if TYPE_CHECKING:
    from mobilemodel.bundle import Bundle
    from mobilemodel.pipeline import Verification

class Terminated(BaseException):
    """SIGTERM or SIGHUP: unwinds like an interruption, so that temporary files are taken away."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Bad input never ends in a traceback."""
    if sys.stdout is None:
        return _fail("standard output is closed", 1, "Send it to /dev/null to drop it.")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    try:
        with _termination_unwinds():
            code = _run(arguments)
            sys.stdout.flush()
            return code
    except MobileModelError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        # Python remembers one that passed through exec of a text, as dataclasses are made by, and would end by the
        # signal and not by this code. The next exec makes it forget.
        exec("")  # noqa: S102 - no text of anybody
        return _fail("interrupted", 130)
    except Terminated as error:
        return _fail("terminated", error.exit_code)
    except BrokenPipeError:
        _drop_output()  # whoever read it has gone
        return 1
    except MemoryError:
        return _fail("not enough memory", 1)
    except OSError as error:
        _drop_output()
        place = f": {escape(str(error.filename))}" if error.filename else ""
        return _fail(f"{error.strerror or error}{place}", 1)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = command_line(_COMMANDS).parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()  # the help text: a pipe that is closed shows now
        raise
    code: int = options.run(options)
    return code


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Turn the signals that end a process into an exception while a command runs."""

    def unwind(number: int, _: FrameType | None) -> NoReturn:
        raise Terminated(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may ask
    # A signal that is ignored, as under nohup, stays ignored.
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) == signal.SIG_DFL}
    for number in before:
        signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str, code: int, advice: str = "") -> int:
    # With stderr closed, print would turn to stdout.
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"mobilemodel: {message}" + (f"\n  {advice}" if advice else ""), file=sys.stderr, flush=True)
    return code


def _drop_output() -> None:
    """What is still buffered for stdout goes nowhere: else Python would fail on it again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _convert(options: argparse.Namespace) -> int:
    from mobilemodel.converting import convert_command, report_json, report_lines

    with Progress() as progress:
        report, searching = convert_command(options, progress.show)
    if options.json:
        _print_json(report_json(report, searching))
    else:
        print(report_lines(report, searching))
    if options.dry_run:
        _talk("dry run: nothing was written")
    if searching is not None and not searching.found.met:
        return 1
    return 0


def _inspect(options: argparse.Namespace) -> int:
    import mobilemodel
    from mobilemodel.listing import list_bundle, list_tensor, listing_json

    with mobilemodel.open(options.bundle) as bundle:
        tensor = bundle[options.tensor] if options.tensor is not None else None
        if options.json:
            _print_json(listing_json(bundle, tensor))
        else:
            print(list_bundle(bundle) if tensor is None else list_tensor(tensor))
    return 0


def _verify(options: argparse.Namespace) -> int:
    import mobilemodel
    from mobilemodel.listing import verification_json
    from mobilemodel.pipeline import verify

    with mobilemodel.open(options.bundle) as bundle, Progress() as progress:
        found = verify(bundle, options.against, converter=options.converter, options=source_options(options),
                       tolerance=options.tolerance, progress=progress.show)  # fmt: skip
    if options.json:
        _print_json(verification_json(found))
    else:
        _print_verification(options.bundle, found)
    if found.outputs_skipped:
        _talk(f"outputs were not compared: {escape(found.outputs_skipped, 400)}")
    return 0


def _print_verification(name: str, found: Verification) -> None:
    print(f"{escape(name)}: whole; {found.tensors} tensors decode")
    for line in found.made:
        print(f"  checked {line}")
    for check in found.checks:
        ratio = "differs" if check.sqnr_db is None else f"{check.sqnr_db:.2f} dB"
        state = "identical" if check.identical else ratio
        print(f"  {escape(check.name, 1024)}: {state}")
    for output in found.outputs:
        apart = f"largest difference {output.largest_absolute:.3g}, {output.largest_relative:.3g} of its largest value"
        print(f"  output {escape(output.output, 1024)}: {'identical' if output.identical else apart}")


def _eval(options: argparse.Namespace) -> int:
    from mobilemodel.evaluation_text import evaluation_json, evaluation_text, remarks
    from mobilemodel.pipeline import PreprocessingOptions
    from mobilemodel.runtime import evaluate_models, read_data

    wanted = PreprocessingOptions(options.mean, options.scale, options.channels, options.resize, options.crop)
    step, mean_picture = wanted.prepared()
    data = read_data(options.data)
    if data.ready and wanted.given:
        raise UsageError("float32 data go in as they are: there is nothing to prepare", file=options.data)
    with Progress() as progress:
        found = evaluate_models(options.models, data, preprocessing=step, mean_picture=mean_picture,
                                limit=options.limit, views=options.views, threads=options.threads,
                                progress=progress.show)  # fmt: skip
    if options.json:
        _print_json(evaluation_json(found))
    else:
        print(evaluation_text(found))
    for remark in remarks(found):
        _talk(remark)
    return 0


def _draw(options: argparse.Namespace) -> int:
    from mobilemodel.runtime.drawn import write_drawn

    with Progress() as progress:
        write_drawn(options.out, options.count, *options.size, seed=options.seed, force=options.force,
                    progress=progress.show)  # fmt: skip
    return 0


def _export(options: argparse.Namespace) -> int:
    import mobilemodel
    from mobilemodel.exporter import export

    with mobilemodel.open(options.bundle) as bundle:
        for path in export(bundle, options.file, force=options.force, klaus=options.klaus, say=_talk):
            print(escape(path, 4096))
        whole = options.file.lower().endswith((".onnx", ".sqlite3"))
        inside = 0 if whole else _left_in_graph(bundle)
    if inside:
        _talk(f"{inside} tensors that stayed in the graph are not in this file; the .onnx export has them")
    return 0


def _left_in_graph(bundle: Bundle) -> int:
    """How many tensors of the source the bundle's own report names that are not among its tensors."""
    try:
        rows = (bundle.report() or {}).get("tensors")
    except MobileModelError:
        return 0
    return sum(isinstance(row, dict) and row.get("name") not in bundle for row in rows) if isinstance(rows, list) else 0


def _converters(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from mobilemodel.audit.report import table
    from mobilemodel.pipeline import source_formats

    formats = source_formats()
    if options.json:
        _print_json({"schema": "mobilemodel.converters/1", "converters": [asdict(item) for item in formats]})
        return 0
    rows = [
        [item.name, " ".join(item.suffixes), item.provider, item.description if item.status == "ready" else item.status]
        for item in formats
    ]
    cells = [[escape(cell) for cell in row] for row in rows]
    print(table(("format", "suffixes", "package", "description"), cells, frozenset(range(4))))
    return 0


def _print_json(content: object) -> None:
    print(json.dumps(content, sort_keys=True, indent=2, allow_nan=False))


def _talk(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr)


class Progress:
    """One line on a terminal's stderr, from two seconds of work on; nothing elsewhere."""

    quiet_seconds = 2.0
    interval_seconds = 0.1

    def __init__(self) -> None:
        self._next = time.monotonic() + self.quiet_seconds
        self._shown = False
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def show(self, what: str, done: int, total: int) -> None:
        """Say what is being done and how far it is, in bytes."""
        if not self._terminal or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.interval_seconds
        share = f" {100 * done // total} %" if total else ""
        print(f"\r\x1b[K{escape(what, 60)}{share}", end="", file=sys.stderr, flush=True)
        self._shown = True


_COMMANDS: dict[str, Command] = {
    "convert": _convert,
    "inspect": _inspect,
    "verify": _verify,
    "eval": _eval,
    "draw": _draw,
    "export": _export,
    "converters": _converters,
}


def run_and_exit() -> NoReturn:
    """Entry point of ``python -m mobilemodel``."""
    sys.exit(main())
