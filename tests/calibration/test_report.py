"""Figures and reports: every region is drawn where the data are, and names in a trace are never markup."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from calibration.accuracy import predicted_seconds
from calibration.figures import COLOURS, SYMBOLS, error_over_run, predicted_against_measured
from calibration.fit import fit
from calibration.report import ReportInput, render
from tests.calibration.synthetic import measured


@pytest.fixture(scope="module")
def fitted():
    steps = measured(300)
    model = fit(steps, datetime(2026, 5, 1, tzinfo=UTC))
    return steps, model, predicted_seconds(model, steps)


def test_every_step_is_drawn_once_in_milliseconds(fitted):
    steps, _, predicted = fitted
    drawn = [trace for trace in predicted_against_measured(steps, predicted).data if trace.mode == "markers"]
    assert {trace.name for trace in drawn} == {"decode", "prefill", "mixed"}
    np.testing.assert_allclose(sorted(x for trace in drawn for x in trace.x), sorted(steps.seconds * 1e3))
    np.testing.assert_allclose(sorted(y for trace in drawn for y in trace.y), sorted(predicted * 1e3))


def test_errors_over_the_run_keep_the_order(fitted):
    steps, _, predicted = fitted
    for trace in error_over_run(steps, predicted).data:
        np.testing.assert_allclose(trace.y, (predicted / steps.seconds - 1)[list(trace.x)] * 100)


def test_axes_name_their_units(fitted):
    steps, _, predicted = fitted
    layout = predicted_against_measured(steps, predicted).layout
    assert "(ms)" in layout.xaxis.title.text
    assert "(ms)" in layout.yaxis.title.text
    assert "(%)" in error_over_run(steps, predicted).layout.yaxis.title.text


def test_regions_differ_in_colour_and_in_shape():
    assert len(set(COLOURS.values())) == len(set(SYMBOLS.values())) == 3


def test_large_runs_are_thinned():
    steps = measured(300)
    many = steps.select(np.tile(np.arange(300), 100))
    figure = predicted_against_measured(many, many.seconds)
    assert sum(len(trace.x) for trace in figure.data if trace.mode == "markers") <= 6_000


def test_the_report_stands_alone_and_escapes_names(fitted):
    steps, model, predicted = fitted
    origin = replace(model.provenance, model="<script>alert(1)</script>", sources=("<b>trace</b>",))
    html = render(
        ReportInput("A & B", "Fine.", "Points.", replace(model, provenance=origin), steps, predicted, model.errors)
    )
    assert "<script>alert(1)</script>" not in html
    assert "&lt;b&gt;trace&lt;/b&gt;" in html
    assert "A &amp; B" in html
    assert 'src="http' not in html
    assert html.count('class="plotly-graph-div"') == 2
    assert "grouped hold-out" in html
