"""Figures to choose by draw what their tables hold; frontiers and break-evens hold against brute force."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from simulator.output.attribution import attribution
from simulator.output.figures import choice, distributions, sweep, timeline
from simulator.output.figures.choice import OwnFleet
from simulator.output.results import Estimate
from simulator.output.timeline import timeline as over_time
from simulator.planning.compare import Comparison, Contender
from tests.simulator.output.runs import crowded
from tests.simulator.scenarios import small


@pytest.fixture(scope="module")
def trace():
    return crowded(150)


@pytest.fixture
def table():
    """Four answers, one of a transient, one refused."""
    return pd.DataFrame(
        {
            "workload.request_rate": [1, 2, 3, 4, 5], "hardware.accelerator": ["A", "A", "B", "B", "B"],
            "status": ["answered"] * 4 + ["refused"], "message": [None] * 4 + ["no such thing"],
            "verdict": ["steady", "steady", "steady", "unstable", None], "reason": ["", "", "", "it grows", None],
            "p50_tpot_s": [0.01, 0.02, 0.016, 0.03, np.nan],
            "output_tokens_per_gpu_s": [100.0, 300.0, 200.0, 900.0, np.nan],
            "meets_targets": [True, False, True, False, None], "usd_per_hour": [4.0, 4.0, 8.0, 8.0, np.nan],
            "usd_per_hour_low": [3.0, 3.0, 6.0, 6.0, np.nan], "usd_per_hour_high": [9.0, 9.0, 18.0, 18.0, np.nan],
            "fleet": ["1", "1", "2", "2", None],
        }
    )  # fmt: skip


def drawn(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_the_pareto_shows_steady_points_and_their_frontier(table):
    figure = sweep.pareto(table, ["workload.request_rate"], tpot_target_s=0.0125, colour_by="hardware.accelerator")
    assert sorted([*drawn(figure, "A").x, *drawn(figure, "B").x]) == pytest.approx([50, 62.5, 100])
    assert list(drawn(figure, "best of these").x) == pytest.approx([50, 62.5, 100])
    assert [shape.x0 for shape in figure.layout.shapes if shape.type == "line"] == [80]
    assert drawn(figure, "A").marker.symbol == ("circle", "circle-open")
    assert "request_rate 1" in drawn(figure, "A").customdata[0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_the_frontier_is_of_those_that_nobody_beats(points):
    x, y = np.array(points, dtype=float).T
    kept = sweep.frontier(x, y)
    beaten = [any((x >= a) & (y >= b) & ((x > a) | (y > b))) for a, b in zip(x, y, strict=True)]
    assert {(x[i], y[i]) for i in kept} == {(a, b) for a, b, lost in zip(x, y, beaten, strict=True) if not lost}
    assert (np.diff(x[kept]) > 0).all()


def test_a_heat_map_is_blank_where_there_is_no_answer(table):
    figure = sweep.heat_map(table, "workload.request_rate", "hardware.accelerator", "output_tokens_per_gpu_s")
    cells = figure.data[0]
    heights = dict(zip(cells.y, np.array(cells.z), strict=True))
    np.testing.assert_array_equal(heights["A"], [100, 300, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(heights["B"], [np.nan, np.nan, 200, np.nan, np.nan])
    told = dict(zip(cells.y, cells.customdata, strict=True))["B"]
    assert told[3] == "it grows" and told[4] == "no such thing"


def test_cost_against_a_target_has_the_range_of_prices(table):
    figure = sweep.cost_against_target(table, "workload.request_rate", "requests/s")
    assert list(drawn(figure, "typical price").y) == [4, 4, 8, 8]
    assert max(drawn(figure, "range of prices").y) == 18
    assert list(drawn(figure, "nothing meets it").x) == [5]


def test_the_largest_influence_is_on_top():
    figure = sweep.sensitivity({"a": (9, 11), "b": (5, 20), "c": (8, 9.5)}, 10.0, "$")
    assert list(figure.data[0].y)[-1] == "b"
    assert list(figure.data[1].x) == [-0.5, 1, 10]


@example(3.25, 1.0, 3.5)  # the last step meets the API's line exactly
@given(st.floats(0.5, 20), st.floats(0.2, 5), st.floats(0.5, 40))
def test_from_the_break_even_on_the_fleet_is_never_dearer(usd, tokens, price):
    fleet = OwnFleet(1000 * usd, 1e9 * tokens)
    assume(abs(price * tokens / usd - 1) > 0.01)  # closer, thousands of steps lie within the tolerance below
    found = fleet.break_even_tokens(price)

    def is_dearer(volume):
        return fleet.usd_per_month(volume) > volume / 1e6 * price * (1 + 1e-9)

    if found is None:
        assert is_dearer(fleet.tokens_per_replica_month * 1000.0001)
        return
    assert not any(is_dearer(volume) for volume in np.linspace(found * (1 + 1e-6), 3 * found, 400))
    assert is_dearer(found * (1 - 1e-6)) or found <= 1e-6


def test_the_api_figure_marks_where_they_part():
    figure = choice.own_fleet_against_api(OwnFleet(2920, 2e9), 2.0)
    assert figure.layout.shapes[0].x0 == pytest.approx(OwnFleet(2920, 2e9).break_even_tokens(2.0) / 1e9)
    assert choice.own_fleet_against_api(OwnFleet(2920, 2e9), 0.5).layout.shapes == ()


def test_the_parts_of_a_latency_stack_to_it(trace):
    found = attribution(trace)
    figure = distributions.latency_parts(found)
    assert sum(bar.x[1] for bar in figure.data) == pytest.approx(1e3 * sum(found.mean_s.values()), abs=1e-3)
    assert {bar.name for bar in figure.data} >= {"queue", "prefill"}


def test_a_run_over_time_draws_its_timeline(trace):
    line = over_time(trace.steps, 50)
    figure = timeline.run_over_time(line)
    np.testing.assert_allclose(drawn(figure, "running").y, line.running)
    np.testing.assert_allclose(drawn(figure, "KV cache in use").y, 100 * line.kv_use)
    assert sum(drawn(figure, "preemptions").y) == pytest.approx(trace.steps["num_preempted"].sum())
    empty = timeline.run_over_time(over_time(pd.DataFrame()))
    assert all(len(part.x) == 0 for part in empty.data)


def test_passes_are_drawn_as_wide_as_they_last(trace):
    figure = timeline.batch_composition(trace.steps, begin_s=0.2, replica=1)
    own = trace.steps[(trace.steps["replica"] == 1) & (trace.steps["start_s"] >= 0.2)].head(timeline.MOST_STEPS)
    np.testing.assert_allclose(drawn(figure, "prompt tokens").width, own["wall_s"])
    assert sum(drawn(figure, "output tokens").y) == own["decode_tokens"].sum()


def test_differences_carry_their_intervals():
    base = Contender(small(name="base"), (), {"mean_ttft_s": Estimate(1, 1, 1)}, {})
    other = replace(base, scenario=small(name="other"), differences={"mean_ttft_s": Estimate(0.1, 0.05, 0.2)})
    points = choice.differences(Comparison((0, 1), 95, (base, other))).data[0]
    assert list(points.x) == pytest.approx([10])
    assert list(points.error_x.array) == pytest.approx([10]) and list(points.error_x.arrayminus) == pytest.approx([5])
