"""The report of a fit or a validation: figures, error table, the model's costs, and where it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from calibration.accuracy import ErrorCell
from calibration.figures import error_over_run, predicted_against_measured
from calibration.fitted import FittedStepTime
from calibration.measurements import Measurements
from calibration.page import Page, PageTable, Section, render_page
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
    origin = content.profile.provenance
    subtitle = f"{origin.subject}, fitted {origin.fitted_at}"
    return render_page(Page(content.title, subtitle, content.summary, sections(content)))


def sections(content: ReportInput) -> list[Section]:
    """What the report shows, for other reports too."""
    profile = content.profile
    costs = [(name, f"{cost * 1e6:.6g} µs") for name, cost in profile.form.costs.items()]
    model = f"{FORMULAS[profile.form.scope]}; join = {profile.form.join}"
    return [
        *_figures(content),
        *error_sections(content.errors),
        Section("The model", model, tables=[PageTable(costs)]),
        Section("Where it comes from", tables=[PageTable(_provenance(profile), names=2)]),
        *([Section("Read with care", items=profile.notes)] if profile.notes else []),
    ]


def error_sections(errors: Sequence[ErrorCell]) -> list[Section]:
    """The error table, a section a method."""
    header = ("passes", "cell", "steps", "MAPE", "bias", "total time")
    found = []
    for method, group in groupby(errors, key=lambda cell: cell.method):
        cells = list(group)
        rows = [
            (c.region, c.cell, f"{c.n:,}", f"{c.mape:.1%}", f"{c.bias:+.1%}", f"{c.total_error:+.1%}") for c in cells
        ]
        whole = frozenset(index for index, cell in enumerate(cells) if not cell.cell)
        found.append(Section(f"Errors: {method}", tables=[PageTable(rows, header, names=2, strong=whole)]))
    return found


def _figures(content: ReportInput) -> list[Section]:
    return [
        Section(
            "Predicted against measured",
            f"{content.points} One point a step; the grey band is 10 % about exact.",
            [predicted_against_measured(content.measurements, content.predicted)],
        ),
        Section(
            "Error over the run",
            f"{content.points} Waves or a slope are drift of the machine: no composition of the batch explains them.",
            [error_over_run(content.measurements, content.predicted)],
        ),
    ]


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
