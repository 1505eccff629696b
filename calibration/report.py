"""One HTML file about a fit or a validation: it opens offline, and whatever a trace is named, it is only text in it."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from calibration.accuracy import ErrorCell
from calibration.figures import error_over_run, predicted_against_measured
from calibration.fitted import FittedStepTime
from calibration.measurements import Measurements
from roofline.step_time import FloatArray

FORMULAS = {
    "linear": "time = fixed + join(weight read, tokens) + attention pairs + context + sequences",
    "whole": "time = fixed + join(weight read + context, tokens + attention pairs) + sequences",
}


@dataclass(frozen=True, slots=True, eq=False)
class ReportInput:
    """What a report shows: steps with their predictions (seconds), and the error table that goes with them."""

    title: str
    summary: str
    points: str  # which steps the figures show, for their captions
    profile: FittedStepTime
    measurements: Measurements
    predicted: FloatArray
    errors: tuple[ErrorCell, ...]


def render(content: ReportInput) -> str:
    """The whole HTML document."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    profile, origin = content.profile, content.profile.provenance
    return environment.get_template("report.html").render(
        title=content.title,
        subtitle=f"{origin.subject}, fitted {origin.fitted_at}",
        summary=content.summary,
        plotly_script=Markup(f"<script>{get_plotlyjs()}</script>"),
        figures=_figures(content),
        tables=[(method, list(cells)) for method, cells in groupby(content.errors, key=lambda cell: cell.method)],
        formula=f"{FORMULAS[profile.form.scope]}; join = {profile.form.join}",
        costs=[(name, f"{cost * 1e6:.6g} µs") for name, cost in profile.form.costs.items()],
        provenance=_provenance(profile),
        notes=profile.notes,
    )


def _figures(content: ReportInput) -> list[tuple[str, str, Markup]]:
    drawn = [
        (
            "Predicted against measured",
            f"{content.points} One point a step; the grey band is 10 % about exact.",
            predicted_against_measured(content.measurements, content.predicted),
        ),
        (
            "Error over the run",
            f"{content.points} Waves or a slope are drift of the machine: no composition of the batch explains them.",
            error_over_run(content.measurements, content.predicted),
        ),
    ]
    return [(heading, caption, _embedded(figure)) for heading, caption, figure in drawn]


def _embedded(figure: go.Figure) -> Markup:
    return Markup(figure.to_html(full_html=False, include_plotlyjs=False))


def _provenance(profile: FittedStepTime) -> list[tuple[str, str]]:
    origin, rows = profile.provenance, profile.rows
    unusable = ", ".join(f"{count} with {reason}" for reason, count in rows.unusable.items()) or "none"
    return [
        ("hardware", str(origin.hardware)),
        ("model", str(origin.model)),
        ("tensor parallel", str(origin.tensor_parallel)),
        ("weights", str(origin.weight_dtype)),
        ("time fitted", origin.clock),
        ("steps used", f"{rows.used:,}"),
        ("steps unusable", unusable),
        ("outliers left out", f"{rows.outliers:,} ({rows.outlier_time_share:.1%} of the time)"),
        *(("trace", source) for source in origin.sources),
        *((name, value) for name, value in (("licence", origin.licence), ("data", origin.attribution)) if value),
    ]
