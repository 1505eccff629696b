"""A timeline loses nothing: its stretches sum to the run, whatever their number, and streaming gives the same."""

import numpy as np
import pandas as pd
import pytest

from simulator.output.timeline import TimelineObserver, timeline
from tests.simulator.output.runs import ENGINE, crowded


@pytest.fixture(scope="module")
def both():
    observer = TimelineObserver(ENGINE.usable_blocks, stretches=64)
    return crowded(observer=observer), observer.timeline()


def total(line, name):
    return float((getattr(line, name) * np.diff(line.edges_s)).sum())


@pytest.mark.parametrize("stretches", [1, 7, 256, 5000])
def test_the_stretches_sum_to_the_run(both, stretches):
    steps = both[0].steps
    line = timeline(steps, stretches)
    assert len(line.centres_s) == stretches
    for name, column in (("preemptions", "num_preempted"), ("prefill_tokens", "prefill_tokens")):
        assert getattr(line, name).sum() == pytest.approx(steps[column].sum())
    assert line.steps.sum() == pytest.approx(len(steps))
    assert total(line, "running") == pytest.approx((steps["num_running"] * steps["wall_s"]).sum())
    assert total(line, "waiting") == pytest.approx((steps["num_waiting"] * steps["wall_s"]).sum())
    held = (steps["kv_blocks_used"] * steps["wall_s"]).sum() / ENGINE.usable_blocks / 2
    assert total(line, "kv_use") == pytest.approx(held)
    assert total(line, "busy") == pytest.approx(steps["wall_s"].sum() / 2)


def test_levels_stay_within_what_there_is(both):
    line = timeline(both[0].steps, 999)
    for values, most in ((line.kv_use, 1.0), (line.busy, 1.0), (line.running, 2 * ENGINE.max_num_seqs)):
        assert values.min() >= 0 and values.max() <= most + 1e-9


def test_streaming_in_bounded_memory_is_the_same_run(both):
    trace, line = both
    assert len(line.edges_s) <= 65
    exact = timeline(trace.steps)
    for name in ("preemptions", "prefill_tokens", "decode_tokens", "steps"):
        assert getattr(line, name).sum() == pytest.approx(getattr(exact, name).sum())
    for name in ("running", "busy"):
        assert total(line, name) == pytest.approx(total(exact, name))
    # within a run of steps alike the use of the cache rises almost in a line
    assert total(line, "kv_use") == pytest.approx(total(exact, "kv_use"), rel=0.02)
    assert total(line, "waiting") == pytest.approx(total(exact, "waiting"), rel=0.02)


def test_a_step_across_an_edge_is_shared_out():
    columns = {"start_s": [0.0, 3.0], "wall_s": [2.0, 1.0], "num_running": [4, 2], "kv_blocks_used": [5, 5]}
    steps = pd.DataFrame({**columns, "kv_blocks_total": 10})
    line = timeline(steps, 4)
    assert line.running.tolist() == [4, 4, 0, 2]
    assert line.busy.tolist() == [1, 1, 0, 1]
    assert line.kv_use.tolist() == [0.5, 0.5, 0, 0.5]
    assert line.steps.tolist() == [0.5, 0.5, 0, 1]
    assert line.waiting.tolist() == [0, 0, 0, 0]


def test_a_run_without_steps_has_no_stretches():
    assert len(timeline(pd.DataFrame()).centres_s) == 0
    assert len(TimelineObserver(10).timeline().centres_s) == 0


def test_the_table_has_a_row_a_stretch(both):
    table = both[1].table()
    assert list(table.columns[:3]) == ["begin_s", "end_s", "running"] and len(table) == len(both[1].centres_s)
