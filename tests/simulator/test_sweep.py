"""A sweep answers every point of its grid once, whatever stops it in between, and equals asking one by one."""

import importlib.util
import json
import os
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.workload import requests_of
from roofline.errors import InputError
from simulator import sweep as sweeps
from simulator.deployment import resolve
from simulator.grid import Axis, grid, parse_axis
from simulator.output.rows import run_row
from simulator.parallel import Workers, ordered, unordered
from simulator.planning.cost import cost_of
from simulator.planning.criteria import is_precise
from simulator.planning.steady import steady_run
from tests.simulator.scenarios import small

AXES = [Axis("engine.max_num_seqs", (8, 64)), Axis("workload.request_rate", (20, 40))]


@pytest.fixture
def points():
    return grid(small(run__max_requests=400), AXES)


def test_every_combination_is_a_point_the_last_axis_fastest(points):
    assert [tuple(point.values.values()) for point in points] == [(8, 20), (8, 40), (64, 20), (64, 40)]
    assert [p.scenario.engine.max_num_seqs for p in points] == [8, 8, 64, 64]


def test_a_point_is_what_asking_alone_gives(points, tmp_path):
    table = sweeps.sweep(points, "run", tmp_path)
    assert (table["status"] == "answered").all()
    for point, row in zip(points, table.to_dict("records"), strict=True):
        alone = steady_run(resolve(point.scenario), point.scenario.fleet.replicas, is_precise)
        for name, value in run_row(alone, cost_of(point.scenario, alone)).items():
            assert row[name] == value or (value is None and pd.isna(row[name])), name
        assert row["workload.request_rate"] == point.scenario.workload.request_rate


def test_a_stopped_sweep_goes_on_where_it_was(points, tmp_path, monkeypatch):
    asked = []
    real = sweeps.answer

    def stop_at_third(scenario, question):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(scenario)
        return real(scenario, question)

    monkeypatch.setattr(sweeps, "answer", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        sweeps.sweep(points, "run", tmp_path)
    assert sweeps.num_stored(points, tmp_path) == 2
    assert not (tmp_path / sweeps.RESULT_FILE).exists()
    monkeypatch.setattr(sweeps, "answer", lambda scenario, question: asked.append(scenario) or real(scenario, question))
    told = []
    table = sweeps.sweep(points, "run", tmp_path, done=told.append)
    assert len(asked) == len(points) and sum(told) == len(points)
    pd.testing.assert_frame_equal(table, sweeps.sweep(points, "run", tmp_path / "anew"))
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / sweeps.RESULT_FILE), check_dtype=False)


def test_two_processes_answer_the_same(points, tmp_path):
    alone = sweeps.sweep(points, "run", tmp_path / "alone")
    together = sweeps.sweep(points, "run", tmp_path / "together", Workers(2))
    pd.testing.assert_frame_equal(alone, together)


def test_what_cannot_be_answered_is_a_row_with_its_reason(tmp_path):
    points = grid(
        small(run__max_requests=400, workload__request_rate=10),
        [Axis("model", ("llama-3.1-8b", "llama-3.1-70b"))],
        "plan",
    )
    table = sweeps.sweep(points, "plan", tmp_path)
    assert table["status"].tolist() == ["answered", "refused"]
    assert "tensor parallelism" in table["message"][1]
    tight = grid(small(), [Axis("slo.ttft_ms", (1,))], "capacity")
    assert sweeps.sweep(tight, "capacity", tmp_path)["status"].tolist() == ["infeasible"]


def test_lengths_and_their_shorthands_stand_in_one_column(tmp_path):
    axis = parse_axis("workload.prompt_tokens=128,uniform:64:256")
    table = sweeps.sweep(grid(small(run__max_requests=500), [axis]), "run", tmp_path)
    assert table["workload.prompt_tokens"].tolist() == ["128", "uniform:64:256"]


def test_the_key_is_of_all_that_the_answer_depends_on(tmp_path):
    trace = tmp_path / "trace.csv"

    requests_of(np.arange(3.0), np.full(3, 9), np.full(3, 9)).to_csv(trace, index=False)

    def key(**changes):
        return grid(small(**changes), [])[0].key

    plain = key()
    assert key(name="other") == plain  # what it is called changes nothing
    assert key(seed=1) != plain
    assert key(engine__max_num_seqs=256) == plain  # the default, said
    assert grid(small(), [], "plan")[0].key != plain
    recorded = {"workload": {"trace": {"file": str(trace)}}}
    before = key(**recorded)
    trace.write_text(trace.read_text().replace("9", "8"))
    assert grid(small(**recorded), [])[0].key != before


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("engine.max_num_seqs=64,128", (64, 128)),
        ("workload.request_rate=10..50:5", (10, 20, 30, 40, 50)),
        ("slo.ttft_ms=0.5..1:2", (0.5, 1.0)),
        ("hardware={accelerator: H100},{accelerator: H200}", ({"accelerator": "H100"}, {"accelerator": "H200"})),
        ("step_time.profile=null", (None,)),
    ],
)
def test_values_are_yaml_or_a_range(text, values):
    assert parse_axis(text).values == values


@given(st.integers(-50, 50), st.integers(1, 100), st.integers(2, 9))
def test_a_range_has_its_ends_and_even_steps(low, width, count):
    values = parse_axis(f"seed={low}..{low + width}:{count}").values
    assert (values[0], values[-1], len(values)) == (low, low + width, count)
    assert all(b - a == pytest.approx(width / (count - 1)) for a, b in pairwise(values))


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        (["nonsense"], "no field with values"),
        (["seed=1..5:1"], "at least 2"),
        (["seed=[1"], "not understood"),
        (["engine.max_seqs=1"], "engine.max_seqs is no setting"),
        (["workload.request_rate=-1"], "workload.request_rate is -1"),
        (["seed=1", "seed=2"], "seed varies twice"),
        (["engine={}", "engine.max_num_seqs=3"], "one is part of the other"),
        (["seed=1..1000:1000", "engine.num_blocks=100..1100:1000"], "1,000,000 points"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_before_anything_runs(axes, told):
    with pytest.raises(InputError, match=told):
        grid(small(), [parse_axis(text) for text in axes])


def _double(value):
    return 2 * value, os.getpid()


def test_two_workers_are_two_processes():
    done = dict(unordered(_double, range(8), Workers(2)))
    assert {index: value for index, (value, _) in done.items()} == {n: 2 * n for n in range(8)}
    assert [value for value, _ in ordered(_double, range(8), Workers(2))] == [2 * n for n in range(8)]
    assert os.getpid() not in {pid for _, pid in done.values()}
    with pytest.raises(InputError, match="jobs is -1"):
        Workers(-1)


def test_ray_does_the_same(points, tmp_path):
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(InputError, match="Ray is not installed"):
            sweeps.sweep(points, "run", tmp_path, Workers(2, "ray"))
        pytest.skip("ray is not installed (the extra [ray])")
    alone = sweeps.sweep(points, "run", tmp_path / "alone")
    pd.testing.assert_frame_equal(alone, sweeps.sweep(points, "run", tmp_path / "ray", Workers(2, "ray")))


def test_the_row_of_a_sweep_can_be_asked_again(points, tmp_path):
    table = sweeps.sweep(points[:1], "run", tmp_path)
    assert json.loads(table["scenario"][0])["engine"] == {"max_num_seqs": 8}
