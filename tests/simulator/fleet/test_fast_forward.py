"""Jumping over steps changes nothing: not a timestamp, not a step, not a block count."""

import dataclasses

import numpy as np
from hypothesis import given, settings

from engine.core.config import EngineConfig
from engine.core.metrics import summarize
from simulator.fleet.cluster import FleetSpec, simulate
from simulator.output.streaming import RELATIVE_ACCURACY, StreamingStats
from tests.simulator.fakes import LinearStep, workload
from tests.simulator.fleet.runs import record, runs


@settings(max_examples=150, deadline=None)
@given(runs(trouble=True))
def test_no_timestamp_step_or_block_count_depends_on_jumping(run):
    fleet, load = run
    jumping, stepping = (record(fleet, load, fast_forward) for fast_forward in (True, False))
    assert len(jumping.steps) == len(stepping.steps)
    different = jumping.steps.compare(stepping.steps)
    assert different.empty, different.to_string()
    assert len(jumping.requests) == len(stepping.requests)
    for name in jumping.requests:
        one, other = jumping.requests[name], stepping.requests[name]
        if name == "token_times_s":
            assert [a.tolist() for a in one] == [b.tolist() for b in other]
        else:
            assert one.equals(other), name


@settings(max_examples=100, deadline=None)
@given(runs())
def test_requests_tokens_and_time_are_conserved(run):
    fleet, load = run
    trace = record(fleet, load, True)
    requests, steps = trace.requests, trace.steps
    assert len(requests) == len(load)
    assert (
        requests["output_tokens"].to_numpy()
        == np.minimum(load.requests["output_tokens"], fleet.engine.max_model_len - load.requests["prompt_tokens"])
    ).all()
    assert all(len(t) == n for t, n in zip(requests["token_times_s"], requests["output_tokens"], strict=True))
    assert all((np.diff(t) > 0).all() for t in requests["token_times_s"])
    assert (requests["first_scheduled_s"] >= requests["arrival_s"]).all()
    assert (requests["first_token_s"] > requests["first_scheduled_s"]).all()
    assert (steps["kv_blocks_used"] <= steps["kv_blocks_total"]).all()
    if not requests["num_preemptions"].any() and not fleet.engine.async_scheduling:
        computed = requests["prompt_tokens"] + requests["output_tokens"] - 1 - requests["cached_tokens"]
        assert steps[["prefill_tokens", "decode_tokens"]].to_numpy().sum() == computed.sum()


@settings(max_examples=60, deadline=None)
@given(runs())
def test_streaming_figures_equal_the_recorded_ones(run):
    fleet, load = run
    stats = StreamingStats()
    simulate(fleet, LinearStep(), load, stats)
    exact, streamed = summarize(record(fleet, load, True)), stats.summary()
    for name in ("num_requests", "num_steps", "num_preemptions"):
        assert streamed[name] == exact[name]
    for name in ("makespan_s", "request_throughput", "output_throughput"):
        assert (streamed[name] or 0) == np.float64(exact[name] or 0)
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        if exact[name] is None:
            assert streamed[name] is None
        else:
            assert abs(streamed[name]["mean"] / exact[name]["mean"] - 1) < 1e-9


def test_streamed_percentiles_are_within_the_sketches_accuracy():
    engine = EngineConfig(num_blocks=4000, max_num_seqs=64)
    rng = np.random.default_rng(7)
    load = workload(np.cumsum(rng.exponential(0.05, 3000)), rng.integers(1, 400, 3000), rng.integers(2, 80, 3000))
    stats = StreamingStats()
    simulate(FleetSpec(engine), LinearStep(), load, stats)
    exact, streamed = summarize(record(FleetSpec(engine), load, True)), stats.summary()
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        for point in ("p50", "p90", "p99"):
            # beside the sketch's own error, two conventions of a percentile lie a rank apart
            assert (
                streamed[name][point] == np.float64(exact[name][point])
                or abs(streamed[name][point] / exact[name][point] - 1) < 4 * RELATIVE_ACCURACY
            ), (name, point)


def test_memory_does_not_grow_with_the_run():
    """The replica forgets a request when it is answered."""
    engine = EngineConfig(num_blocks=400, max_num_seqs=16)
    load = workload(np.arange(2000) * 0.1, 20, 8)
    replicas = simulate(FleetSpec(engine), LinearStep(), load, StreamingStats())
    left = dataclasses.asdict  # noqa: F841
    assert not replicas[0]._jobs
    assert len(replicas[0]._ends) < 10
    assert len(replicas[0].scheduler.cohort._longest) < 50
    assert len(replicas[0].scheduler.cohort._limits) < 50
