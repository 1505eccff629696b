"""What is in the figure of latency against load: the steady points, the target, the load asked about."""

from dataclasses import replace

import pytest

from simulator import scenario_file
from simulator.output.results import LoadCurve
from simulator.planning.plan import plan
from views import charts, inputs

SMALL = {"workload.request_rate": 40, "workload.prompt_tokens": 64, "workload.output_tokens": 8, "model": "qwen3-0.6b"}


@pytest.fixture(scope="module")
def planned():
    scenario = scenario_file.with_changes(inputs.start("chat"), SMALL)
    found = []
    plan(scenario, found=found.append)
    return found[0]


@pytest.fixture(scope="module")
def curve(planned):
    """Four loads of one measured run's figures, the last without a steady state."""
    points = [replace(planned.chosen, offered_rate_per_s=rate) for rate in (10.0, 20.0, 30.0)]
    unsteady = replace(planned.chosen, offered_rate_per_s=50.0, verdict="unstable")
    return LoadCurve(planned.replicas, planned.gpus, (*points, unsteady))


@pytest.mark.parametrize("metric", ["ttft_s", "tpot_s"])
def test_line_has_the_steady_points_in_milliseconds(curve, planned, metric):
    figure = charts.latency_against_load(curve, metric, planned)
    line = next(trace for trace in figure.data if trace.mode == "lines+markers")
    assert list(line.x) == [10.0, 20.0, 30.0]
    assert list(line.y) == pytest.approx([1e3 * planned.chosen.latencies[metric].at_target.value] * 3)
    assert line.uid is None and figure.layout.uirevision == "constant"


def test_axes_say_metric_percentile_scope_and_unit(curve, planned):
    figure = charts.latency_against_load(curve, "tpot_s", planned)
    assert figure.layout.yaxis.title.text == "p99 TPOT (ms)"
    assert figure.layout.xaxis.title.text == "offered load, whole fleet (requests/s)"
    assert figure.layout.xaxis.range[0] == 0 and figure.layout.xaxis.range[1] > 50


def test_target_load_asked_about_and_unsteady_loads_are_marked(curve, planned):
    figure = charts.latency_against_load(curve, "ttft_s", planned)
    lines = {shape.line.dash: shape for shape in figure.layout.shapes}
    assert lines["dash"].y0 == lines["dash"].y1 == 500.0
    assert lines["dot"].x0 == lines["dot"].x1 == 40.0
    shade = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert shade.x0 == 50.0
    told = {annotation.text for annotation in figure.layout.annotations}
    assert {"target 500 ms", "your load", "no steady state"} <= told
    assert figure.layout.yaxis.range[1] > 500.0


def test_without_target_and_unsteady_loads_nothing_is_marked(curve, planned):
    free = replace(planned, chosen=replace(planned.chosen, targets_s={}))
    steady = replace(curve, points=curve.points[:3])
    figure = charts.latency_against_load(steady, "ttft_s", free)
    assert [shape.line.dash for shape in figure.layout.shapes] == ["dot"]


def test_a_curve_without_any_steady_load_still_draws(curve, planned):
    figure = charts.latency_against_load(replace(curve, points=curve.points[3:]), "ttft_s", planned)
    assert not list(next(trace for trace in figure.data if trace.mode == "lines+markers").x)
