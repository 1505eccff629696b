"""Whatever happens, every request ends exactly once, in a way its client can name, and leaves nothing behind."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from engine.core.config import EngineConfig
from engine.core.trace_meta import ClientLink
from roofline.errors import InputError
from simulator.fleet.cluster import FleetSpec, RunOptions, simulate
from simulator.fleet.faults import Crash, RollingUpgrade, Slowdown, SpotInterruption
from simulator.fleet.job import ENDS, FAILED, FINISHED
from simulator.fleet.patience import Patience, Retries
from simulator.output.recorder import TraceRecorder
from simulator.output.streaming import StreamingStats
from tests.simulator.fakes import ConstantStep, LinearStep, workload
from tests.simulator.fleet.runs import record, runs

STEP_S = 0.01
ENGINE = EngineConfig(num_blocks=400, max_num_seqs=8, max_num_batched_tokens=512, max_model_len=512)
ONE_BY_ONE = dataclasses.replace(ENGINE, max_num_seqs=1)


def served(fleet, load, step_time=None):
    """The requests table of a run with constant steps."""
    recorder = TraceRecorder(fleet.engine)
    simulate(fleet, step_time or ConstantStep(STEP_S), load, recorder, RunOptions(record_token_times=True))
    return recorder.trace({}).requests


@settings(max_examples=150, deadline=None)
@given(runs(trouble=True))
def test_every_request_ends_once(run):
    fleet, load = run
    recorder = TraceRecorder(fleet.engine)
    replicas = simulate(fleet, LinearStep(), load, recorder, RunOptions(record_token_times=True))
    requests = recorder.trace({}).requests
    assert sorted(requests["request_id"].astype(int)) == list(range(len(load)))
    assert set(requests["finish_reason"]) <= set(ENDS)
    assert (requests["finish_s"] >= requests["arrival_s"]).all()
    due = np.minimum(load.requests["output_tokens"], fleet.engine.max_model_len - load.requests["prompt_tokens"])
    finished = (requests["finish_reason"] == FINISHED).to_numpy()
    if fleet.admission is None:
        assert (requests["output_tokens"].to_numpy() == due)[finished].all()
    assert (requests["output_tokens"] <= requests["max_tokens"]).all()
    assert (requests["output_tokens"].to_numpy() <= due)[~finished].all()
    for times_s, end_s in zip(requests["token_times_s"], requests["finish_s"], strict=True):
        assert (np.diff(times_s) > 0).all()
        assert (times_s <= end_s).all()
    for replica in replicas:
        assert (replica.num_outstanding, replica.scheduler.num_running, replica.scheduler.num_waiting) == (0, 0, 0)
        assert replica.scheduler.blocks.num_used == 0


@settings(max_examples=40, deadline=None)
@given(runs(trouble=True))
def test_streaming_figures_count_every_end(run):
    fleet, load = run
    stats = StreamingStats()
    simulate(fleet, LinearStep(), load, stats)
    ends = record(fleet, load, True).requests["finish_reason"].value_counts().to_dict()
    assert stats.num_requests == ends.pop(FINISHED, 0)
    assert dict(stats.unfinished) == ends


@settings(max_examples=40, deadline=None)
@given(runs(trouble=True))
def test_same_seed_same_run(run):
    fleet, load = run
    one, other = (record(fleet, load, True) for _ in range(2))
    assert one.steps.equals(other.steps)
    assert one.requests.drop(columns="token_times_s").equals(other.requests.drop(columns="token_times_s"))


def test_a_time_limit_ends_a_request_and_frees_its_place():
    """Two requests of 10 steps on one place: the first is given up after 45 ms, at the boundary the second begins."""
    fleet = FleetSpec(ONE_BY_ONE, patience=Patience(timeout_s=0.045))
    requests = served(fleet, workload([0.0, 0.0], 8, [10, 4]))
    assert requests["finish_reason"].tolist() == ["timeout", "timeout"]
    assert requests["output_tokens"].tolist() == [4, 0]
    patient = dataclasses.replace(fleet, patience=Patience(first_token_timeout_s=0.045))
    requests = served(patient, workload([0.0, 0.0], 8, [10, 4]))
    assert requests["finish_reason"].tolist() == ["length", "timeout"]
    late = served(fleet, workload([0.0, 0.02], 8, [10, 1]))
    assert late["finish_s"].tolist() == pytest.approx([0.045, 0.06])
    assert late["finish_reason"].tolist() == ["timeout", "length"]


def test_what_the_client_gave_up_goes_no_further_on_its_way():
    fleet = FleetSpec(ONE_BY_ONE, client=ClientLink(None, 0.1, 0.0), patience=Patience(timeout_s=0.05))
    requests = served(fleet, workload([0.0], 8, 1))
    assert requests["finish_reason"].tolist() == ["timeout"]
    assert np.isnan(requests["first_scheduled_s"]).all()


def test_a_share_of_users_leaves():
    fleet = FleetSpec(ENGINE, patience=Patience(abort_share=0.25, abort_after_s=0.0))
    requests = served(fleet, workload(np.arange(2000) * 0.05, 8, 2))
    # 2,000 draws of 1 in 4: 500 with a standard deviation of 19
    assert 420 < (requests["finish_reason"] == "abort").sum() < 580


def test_a_repetition_waits_its_pause_and_counts_from_the_first_sending():
    """The replica dies at 0.025 and is up at 0.125; sent again 1 s after the loss, served in 4 steps."""
    retries = Retries(attempts=2, backoff_s=1.0, jitter=0.0)
    fleet = FleetSpec(ONE_BY_ONE, patience=Patience(retries=retries), faults=(Crash(0, 0.025, 0.1),))
    requests = served(fleet, workload([0.0], 8, 4))
    assert requests["finish_s"].tolist() == pytest.approx([0.025 + 1.0 + 4 * STEP_S])
    assert requests["attempts"].tolist() == [2]
    assert np.isnan(requests["send_s"]).all(), "it was first sent when it arrived"
    assert requests["token_times_s"][0].tolist() == pytest.approx(1.025 + STEP_S * np.arange(1, 5))


def test_a_crash_fails_what_is_there_and_spares_the_others():
    fleet = FleetSpec(ENGINE, 2, "round_robin", faults=(Crash(0, 0.055),))
    requests = served(fleet, workload(np.zeros(6), 8, 10))
    assert requests["finish_reason"].tolist() == [FAILED, "length"] * 3
    assert requests["output_tokens"].tolist() == [5, 10] * 3
    assert requests["finish_s"].tolist() == pytest.approx([0.055, 0.1] * 3)


def test_without_a_replica_to_come_requests_fail_and_else_they_wait():
    for restart_s, reason, end_s in ((None, FAILED, 0.5), (1.0, "length", 1.05)):
        fleet = FleetSpec(ENGINE, faults=(Crash(0, 0.0, restart_s),))
        requests = served(fleet, workload([0.5], 8, 5))
        assert requests["finish_reason"].tolist() == [reason]
        assert requests["finish_s"].tolist() == pytest.approx([end_s])


def test_a_slow_replica_takes_as_much_longer_from_the_next_step_on():
    fleet = FleetSpec(ENGINE, faults=(Slowdown(0, 0.025, 0.05, 4.0),))
    requests = served(fleet, workload([0.0], 8, 6))
    # steps end at 10, 20, 30 ms as begun; 70 and 110 ms at a quarter of the pace, the next as before
    assert requests["token_times_s"][0].tolist() == pytest.approx([0.01, 0.02, 0.03, 0.07, 0.11, 0.12])


def test_an_upgrade_that_may_drain_loses_nothing():
    arrivals = workload(np.arange(200) * 0.02, 8, 5)
    fleet = FleetSpec(ENGINE, 3, faults=(RollingUpgrade(0.5, 60.0, 0.7),))
    requests = served(fleet, arrivals)
    assert (requests["finish_reason"] == FINISHED).all()
    # one at a time: drained in at most 50 ms, gone for 0.7 s each
    for number, begin_s in enumerate((0.55, 1.25, 1.95)):
        assert not requests["arrival_s"][requests["replica"] == number].between(begin_s + 0.05, begin_s + 0.65).any()
    hasty = served(dataclasses.replace(fleet, faults=(RollingUpgrade(0.5, 0.0, 0.7),)), arrivals)
    assert set(hasty["finish_reason"]) == {FINISHED, FAILED}


def test_a_spot_machine_ends_what_its_notice_allows():
    load = workload([0.0, 0.3, 0.3], 8, [20, 40, 10])
    fleet = FleetSpec(ENGINE, faults=(SpotInterruption(0, 0.31, 0.2, 1.0),))
    requests = served(fleet, load)
    assert requests["finish_reason"].tolist() == ["length", FAILED, "length"]


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Patience(timeout_s=0), "timeout_s is 0 s; it must be positive"),
        (lambda: Patience(abort_share=1.5), "a share of 1.5 of the users"),
        (lambda: Retries(attempts=0), "attempts is 0"),
        (lambda: Retries(jitter=2), "jitter 2"),
        (lambda: FleetSpec(ENGINE, 2, faults=(Crash(2, 1.0),)), "names replica 2, and the fleet starts with 2"),
    ],
)
def test_impossible_settings_are_refused(build, told):
    with pytest.raises(InputError, match=told):
        build()
