"""The rule of time, on a fake engine and a fake clock; then on a real one, replayed from its own recording."""

import signal
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bench.clock import WallClock
from engine.bench.interrupt import Interrupt, interruptible
from engine.bench.loop import ServingRun
from engine.core import metrics
from engine.core.config import EngineConfig
from engine.core.records import StepLog, requests_table
from engine.core.trace import Trace, read_trace, write_trace
from engine.core.workload import Workload, requests_of
from engine.serving.llm import LLM
from tests.engine.bench.fake_engine import FakeClock, FakeEngine
from tests.engine.bench.replay import replayed_token_times

CONFIG = EngineConfig(num_blocks=40, block_size=4, max_num_seqs=4, max_num_batched_tokens=16, max_model_len=128)


def workload_of(arrivals, prompts, outputs) -> Workload:
    return Workload(requests_of(np.array(arrivals, float), np.array(prompts), np.array(outputs)))


def fake_serve(workload, max_concurrency=None, config=CONFIG, interrupt=None, on_step=lambda live, end: None) -> Trace:
    clock = FakeClock()
    prompts = [list(range(count)) for count in workload.requests["prompt_tokens"]]
    steps = StepLog(config.usable_blocks)
    run = ServingRun(FakeEngine(config, clock), workload, prompts, steps, max_concurrency)
    run.run(clock, interrupt or Interrupt(), on_step)
    return Trace({"engine_config": config.as_dict()}, steps.table(), requests_table(run.records))


workloads = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=12).map(
    lambda rows: workload_of(np.cumsum([gap for gap, _, _ in rows]), [p for _, p, _ in rows], [o for _, _, o in rows])
)
caps = st.none() | st.integers(1, 4)


@given(workloads, caps)
def test_busy_steps_touch_and_idle_ends_with_an_arrival(workload, cap):
    trace = fake_serve(workload, cap)
    start, end = trace.steps["start_s"].to_numpy(), (trace.steps["start_s"] + trace.steps["wall_s"]).to_numpy()
    sent, finish = metrics.sent_s(trace.requests), trace.requests["finish_s"].to_numpy()
    assert start[0] == sent[0]
    for before, after in zip(end, start[1:], strict=False):
        if before == after:
            assert np.any((sent <= before) & (finish > before)), "no work, yet no wait"
        else:
            assert after in sent and not np.any((sent <= before) & (finish > before)), "waited with work to do"


@given(workloads, caps)
def test_every_token_carries_the_end_of_a_step(workload, cap):
    trace = fake_serve(workload, cap)
    ends = set(trace.steps["start_s"] + trace.steps["wall_s"])
    assert all(time in ends for times in trace.requests["token_times_s"] for time in times)
    assert trace.requests["output_tokens"].tolist() == workload.requests["output_tokens"].tolist()
    assert (trace.requests["finish_s"] == [times[-1] for times in trace.requests["token_times_s"]]).all()
    assert (trace.requests["first_scheduled_s"].to_numpy() >= metrics.sent_s(trace.requests)).all()


@given(workloads, st.integers(1, 4))
def test_the_cap_holds_requests_back_and_no_longer_than_needed(workload, cap):
    trace = fake_serve(workload, cap)
    sent, finish = metrics.sent_s(trace.requests), trace.requests["finish_s"].to_numpy()
    for index, time in enumerate(sent):
        others = np.arange(len(sent)) < index
        assert np.sum(others & (finish > time)) < cap, "more in flight than allowed"
        if time > trace.requests["arrival_s"].iat[index]:
            assert time in finish, "sent late, though no place became free then"
            assert np.sum(others & (finish >= time)) >= cap, "held back with a place free"


@given(workloads, caps, st.booleans(), st.sampled_from([14, 40]))
def test_the_recorded_step_times_replay_to_the_same_timestamps(workload, cap, caching, num_blocks):
    config = replace(CONFIG, num_blocks=num_blocks, enable_prefix_caching=caching, max_model_len=48)
    trace = fake_serve(workload, cap, replace(config, enable_prefix_caching=False))
    assert replayed_token_times(trace) == dict(
        zip(trace.requests["request_id"], map(list, trace.requests["token_times_s"]), strict=True)
    )


@pytest.mark.parametrize(
    "settings", [{}, {"num_blocks": 12}, {"async_scheduling": True}, {"enable_prefix_caching": False}]
)
def test_a_real_engine_replays_from_its_recording(tiny, settings, tmp_path):
    """Times read from a clock, steps of a real model, few blocks so that requests are preempted."""
    values = {"num_blocks": 40, "block_size": 4, "max_num_seqs": 6, "max_num_batched_tokens": 32, "max_model_len": 64}
    config = EngineConfig(**{**values, **settings})
    rng = np.random.default_rng(1)
    workload = workload_of(np.cumsum(rng.exponential(0.004, 40)), rng.integers(1, 30, 40), rng.integers(1, 14, 40))
    llm = LLM(tiny, None, config)
    prompts = [rng.integers(0, 101, size=count).tolist() for count in workload.requests["prompt_tokens"]]
    run = ServingRun(llm, workload, prompts, StepLog(config.usable_blocks))
    run.run(WallClock(), Interrupt(), lambda live, end: None)
    trace = Trace({"engine_config": config.as_dict()}, run.steps.table(), requests_table(run.records))
    write_trace(tmp_path / "t", trace)
    if "num_blocks" in settings:
        assert trace.requests["num_preemptions"].sum() > 0
    replayed = replayed_token_times(read_trace(tmp_path / "t"))
    assert replayed == dict(zip(trace.requests["request_id"], map(list, trace.requests["token_times_s"]), strict=True))


def test_ctrl_c_leaves_a_complete_partial_trace(tmp_path):
    workload = workload_of([0.0, 0.1, 0.2, 50.0], [8, 8, 8, 8], [2, 9, 9, 2])
    seen = []

    def press_ctrl_c(live, end):
        seen.append(end)
        if len(seen) == 4:
            signal.raise_signal(signal.SIGINT)

    with interruptible() as interrupt:
        trace = fake_serve(workload, interrupt=interrupt, on_step=press_ctrl_c)
    assert interrupt.requested and len(trace.steps) == 4
    assert trace.requests["finish_reason"].tolist() == ["length", "abort", "abort"]
    assert trace.requests["finish_s"].tolist()[1:] == [seen[-1]] * 2
    write_trace(tmp_path / "t", trace)
    assert metrics.completed(read_trace(tmp_path / "t").requests).tolist() == [True, False, False]


def test_a_second_ctrl_c_stops_at_once():
    with interruptible() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_waiting_ends_early_when_interrupted():
    clock = WallClock()
    clock.wait_until(0.01, Interrupt())
    assert 0.01 <= clock.now() < 5
    clock.wait_until(1e9, Interrupt(requested=True))


def test_running_figures_agree_with_the_trace():
    last = []
    workload = workload_of([0.0, 0.5, 4.0], [8, 20, 3], [4, 6, 1])
    trace = fake_serve(workload, on_step=lambda live, end: last.append(live))
    live = last[-1]
    assert live.num_finished == live.num_first_tokens == 3
    assert live.ttft_sum_s == pytest.approx(metrics.ttft_s(trace.requests).sum())
    assert live.gap_sum_s == pytest.approx(metrics.itl_s(trace.requests).sum())
