"""The tables that the commands share, readable at 80 columns."""

from collections.abc import Mapping

from rich import box
from rich.table import Table

from roofline.console import escape


def pairs(title: str, lines: Mapping[str, str]) -> Table:
    """Names and values, one pair a line."""
    table = Table(box=box.SIMPLE, title=escape(title), show_header=False, title_justify="left", title_style="bold")
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in lines.items():
        table.add_row(escape(name), escape(value))
    return table


def columns(title: str, headings: tuple[str, ...]) -> Table:
    """An empty table whose columns but the first are figures."""
    style = {"title_justify": "left", "title_style": "bold"}
    table = Table(box=box.SIMPLE_HEAD, title=escape(title), pad_edge=False, padding=(0, 1, 0, 0), **style)  # type: ignore[arg-type]
    for index, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if index else "left", no_wrap=True)
    return table


def gigabytes(size: float) -> str:
    """Bytes as decimal gigabytes."""
    return f"{size / 1e9:,.3f} GB" if size < 100e9 else f"{size / 1e9:,.1f} GB"


def kilobytes(size: float) -> str:
    """Bytes of a token, to the byte."""
    return f"{size:,.0f} B"


def billions(count: float) -> str:
    """A number of weights, short."""
    return f"{count / 1e9:,.3f} B" if count < 10e9 else f"{count / 1e9:,.1f} B"
