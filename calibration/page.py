"""One-file HTML pages of sections, tables and figures: they open offline, and every name in them is only text.

The reports of calibration and of the planner are such pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from roofline.files import write_whole


@dataclass(frozen=True, slots=True)
class PageTable:
    """Cells as text. The first `names` columns read from the left, the others are figures; `strong` rows stand out."""

    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()
    names: int = 1
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A heading and what stands below it, in this order."""

    heading: str
    text: str = ""
    figures: Sequence[go.Figure] = ()
    tables: Sequence[PageTable] = ()
    items: Sequence[str] = ()
    code: str = ""  # shown as it is, before the items


@dataclass(frozen=True, slots=True)
class Page:
    """A title, what it is about, its message in a sentence, and the sections."""

    title: str
    subtitle: str
    summary: str
    sections: Sequence[Section]


def render_page(page: Page) -> str:
    """The whole HTML document."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    sections = [
        {
            "heading": section.heading, "text": section.text, "tables": section.tables, "bullets": section.items,
            "code": section.code,
            "figures": [_embedded(figure) for figure in section.figures],
        }
        for section in page.sections
    ]  # fmt: skip
    script = Markup(f"<script>{get_plotlyjs()}</script>") if any(s.figures for s in page.sections) else ""
    return environment.get_template("page.html").render(
        title=page.title, subtitle=page.subtitle, summary=page.summary, sections=sections, plotly_script=script
    )


def write_page(path: Path, page: Page) -> None:
    """Write the page whole or not at all."""
    write_whole(path, render_page(page))


def _embedded(figure: go.Figure) -> Markup:
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False))
