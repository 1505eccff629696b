"""Figures and report show what the results hold, with units, and nothing of a transient."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.core.metrics import summarize
from simulator import run as runs
from simulator.output import report
from simulator.output.figures.distributions import latency_cdf, quantiles_ms
from simulator.output.figures.load import attainment_against_load, latency_against_load, throughput_against_load
from simulator.output.results import LoadCurve
from simulator.planning.load_curve import load_curve
from simulator.planning.plan import plan
from tests.simulator.scenarios import small


@pytest.fixture(scope="module")
def curve():
    return load_curve(small(fleet__replicas=1), loads=(0.3, 0.6, 1.4))


def drawn(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_steady_points_are_drawn_in_milliseconds(curve):
    steady = [point for point in curve.points if point.is_steady]
    line = drawn(latency_against_load(curve, "ttft_s"), "p99")
    np.testing.assert_allclose(line.x, [p.offered_rate_per_s for p in steady])
    np.testing.assert_allclose(line.y, [p.latencies["ttft_s"].p99.value * 1000 for p in steady])


def test_a_transient_has_no_height(curve):
    unsteady = [point for point in curve.points if not point.is_steady]
    assert len(unsteady) == 1
    marks = drawn(latency_against_load(curve, "ttft_s"), "no steady state")
    assert list(marks.x) == [unsteady[0].offered_rate_per_s]
    assert list(marks.customdata) == [unsteady[0].reason]


def test_the_target_is_a_line_at_its_place(curve):
    figure = latency_against_load(curve, "ttft_s")
    assert [shape.y0 for shape in figure.layout.shapes] == [200.0]
    assert "200 ms" in figure.layout.annotations[0].text
    low, high = figure.layout.yaxis.range
    assert low < np.log10(200) < high
    assert latency_against_load(curve, "e2e_s").layout.shapes == ()


def test_axes_name_their_units(curve):
    assert "(requests/s)" in latency_against_load(curve, "tpot_s").layout.xaxis.title.text
    assert "1 GPU " in latency_against_load(curve, "tpot_s").layout.xaxis.title.text
    assert "(ms)" in latency_against_load(curve, "tpot_s").layout.yaxis.title.text
    assert "tokens/s" in throughput_against_load(curve).layout.yaxis.title.text
    assert "(%)" in attainment_against_load(curve).layout.yaxis.title.text


def test_a_curve_without_points_is_an_empty_figure():
    empty = LoadCurve(1, 1, ())
    for figure in (
        latency_against_load(empty, "ttft_s"),
        throughput_against_load(empty),
        attainment_against_load(empty),
    ):
        assert all(len(trace.x) == 0 for trace in figure.data)


def test_a_distribution_rises_to_all(curve):
    values, shares = quantiles_ms(curve.points[0].samples_s["ttft_s"])
    assert (np.diff(values) >= 0).all()
    assert shares[-1] == 100.0
    assert values[-1] == pytest.approx(1000 * curve.points[0].samples_s["ttft_s"].max())
    figure = latency_cdf(curve.points[0], "ttft_s")
    assert [shape.x0 for shape in figure.layout.shapes] == [200.0]


def test_the_report_stands_alone_and_escapes_names(tmp_path, curve):
    found = plan(small(name="<script>alert(1)</script>"))
    measured = summarize(runs.run(small()).trace)
    predicted = {**measured, "output_throughput": 2 * measured["output_throughput"]}
    path = tmp_path / "deep" / "report.html"
    sections = [
        report.measured_section(measured, "Of <b>nothing</b>."),
        report.replay_section({"measured": measured, "predicted": predicted}, ""),
        *report.plan_sections(found),
        report.curve_section(curve),
    ]
    report.write_report(path, "A & B", "Fine.", sections)
    html = path.read_text()
    assert "<script>alert(1)" not in html
    assert "&lt;b&gt;nothing" in html
    assert 'src="http' not in html
    assert "+100.0%" in html
    assert found.scope in html
    assert html.count('class="plotly-graph-div"') == 2 + 3
    assert [entry.name for entry in Path(path).parent.iterdir()] == ["report.html"]


def test_missing_measurements_are_left_blank(tmp_path):
    nothing = dict.fromkeys(summarize(runs.run(small()).trace))
    table = report.measured_section(nothing, "").tables[1]
    assert all(row[1] == "" for row in table.rows)


def test_an_unknown_price_is_said(curve):
    found = replace(plan(small()), cost=None)
    assert "no price is known" in str(report.plan_sections(found)[0].tables[0].rows)
