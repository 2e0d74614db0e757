"""A command line that sends itself a signal: ``python -m tests.cli.striking STAGE SIGNAL WAY COMMAND...``.

STAGE is where the command is struck; WAY is ``unnamed`` or ``named``, the two ways of a temporary file.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from typing import Any

from mobilemodel import cli, files
from mobilemodel.pipeline import searching


def main(stage: str, name: str, way: str, arguments: list[str]) -> int:
    """Run the command; it does not come back where the signal kills."""
    number = getattr(signal, name)
    # Whatever the tests' own process inherited, ignored signals among it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if way == "named" and hasattr(os, "O_TMPFILE"):
        del os.O_TMPFILE
        tempfile._O_TMPFILE_WORKS = False  # type: ignore[attr-defined]

    def show(progress: cli.Progress, what: str, done: int, total: int) -> None:
        if what.split()[0] == stage and (total == 0 or done > 0):
            os.kill(os.getpid(), number)

    cli.Progress.show = show  # type: ignore[method-assign,assignment]
    struck: dict[str, tuple[Any, str]] = {
        "syncing": (os, "fsync"),
        "naming": (os, "link" if way == "unnamed" or "--force" not in arguments else "replace"),
        "replacing": (os, "replace"),
        "closing": (files.OutputFile, "close"),
        "judging": (searching, "judged"),
    }
    if stage in struck:
        _strike_before(*struck[stage], number)
    return cli.main(arguments)


def _strike_before(owner: Any, name: str, number: int) -> None:
    work = getattr(owner, name)

    def striking(*arguments: Any, **options: Any) -> Any:
        # Within exec of a text, as where a dataclass is being made: Python remembers such an interruption.
        exec(f"import os; os.kill(os.getpid(), {number})")
        return work(*arguments, **options)

    setattr(owner, name, striking)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
