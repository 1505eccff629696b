"""What the four command lines share: one clear sentence and exit code 2 for wrong input, progress bars, JSON out.

Sits at the bottom of the house so that every command line can use it.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from roofline.errors import HeadroomError

out = Console()
err = Console(stderr=True)

INTERRUPTED = 130  # exit code of a command stopped by Ctrl-C: 128 + SIGINT


def run(app: typer.Typer, after_interrupt: str = "Stopped.") -> None:
    """Run a command line; turn our exceptions into one sentence on stderr and exit code 2, Ctrl-C into 130.

    Usage errors, `typer.Exit` and `typer.Abort` are typer's own: its releases disagree on the classes behind them, but
    all end in `SystemExit`, with 2 for a usage error and 130 for Ctrl-C.
    """
    try:
        app()
    except HeadroomError as error:
        err.print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as done:
        if done.code == INTERRUPTED:
            err.print(after_interrupt)
        raise


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
        TimeElapsedColumn(), TimeRemainingColumn(), console=err, transient=True,
    )  # fmt: skip


Advance = Callable[[int], None]
