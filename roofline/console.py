"""What the four command lines share: one clear sentence and exit code 2 for wrong input, progress bars, JSON out.

Sits at the bottom of the house so that every command line can use it.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from roofline.errors import HeadroomError

out = Console()
err = Console(stderr=True)

INTERRUPTED = 130  # exit code of a command stopped by Ctrl-C: 128 + SIGINT


def run(app: typer.Typer, after_interrupt: str = "Stopped.") -> None:
    """Run a command line; turn our exceptions into one sentence on stderr and exit code 2, Ctrl-C into 130.

    A file that cannot be written, or read, is the user's to mend as well: OSError ends in a sentence too.

    Usage errors, `typer.Exit` and `typer.Abort` are typer's own: its releases disagree on the classes behind them, but
    all end in `SystemExit`, with 2 for a usage error and 130 for Ctrl-C.
    """
    try:
        app()
    except HeadroomError as error:
        _fail(str(error))
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{place}{error.strerror or error}; check the path, its permissions and the space on the disk.")
    except SystemExit as done:
        if done.code == INTERRUPTED:
            err.print(after_interrupt)
        raise


def _fail(sentence: str) -> NoReturn:
    """End with a sentence on stderr; what a broken file holds is shown without its control characters."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in sentence)
    err.print(f"[bold red]Error:[/] {escape(shown)}", highlight=False, soft_wrap=True)
    sys.exit(2)


def escape(text: str) -> str:
    """Text as rich prints it literally."""
    return text.replace("[", r"\[")


def print_json(value: dict[str, Any]) -> None:
    """One JSON document on stdout; a NaN or infinity is a bug, not a value."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def progress(unit: str = "") -> Progress:
    """A progress bar on stderr that disappears into nothing where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TimeElapsedColumn(), TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal,
    )  # fmt: skip


Advance = Callable[[int], None]
