"""Users who wait for answers: the laws of closed loops, and sessions that find what they said before in the cache."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.config import EngineConfig
from engine.core.workload import Workload, requests_of
from roofline.errors import InputError
from simulator.conversation_source import Draw, conversations
from simulator.deployment import resolve
from simulator.fleet.cluster import FleetSpec, RunOptions, simulate
from simulator.fleet.conversations import Conversations
from simulator.fleet.router import ROUTERS
from simulator.output.recorder import TraceRecorder
from simulator.planning.criteria import is_clear
from simulator.planning.steady import steady_run
from simulator.scenario_file import with_changes
from tests.simulator.fakes import ConstantStep, LinearStep
from tests.simulator.fleet.runs import PATIENCE, faults_of
from tests.simulator.scenarios import small

STEP_S = 0.01
ENGINE = EngineConfig(num_blocks=400, block_size=4, max_num_seqs=8, max_num_batched_tokens=512, max_model_len=512)


def talk(turns, new=5, output=4, pause_s=0.0, users=None, begins_s=None):
    """Sessions of so many turns each, all alike."""
    session = np.repeat(np.arange(len(turns)), turns)
    place = np.concatenate([np.arange(n) for n in turns])
    count = len(session)
    prompts, outputs = place * (new + output) + new, np.full(count, output)
    table = requests_of(np.zeros(count), prompts, outputs).assign(session_id=session.astype(str))
    if begins_s is not None:
        table["arrival_s"] = np.asarray(begins_s)[session]
    return Conversations(Workload(table), np.full(count, pause_s), users)


def run(load, fleet=None, step_time=None, fast_forward=True):
    recorder, arrivals = TraceRecorder(ENGINE), []
    options = RunOptions(fast_forward=fast_forward, record_token_times=True, on_arrival=arrivals.append)
    simulate(fleet or FleetSpec(ENGINE), step_time or ConstantStep(STEP_S), load, recorder, options)
    trace = recorder.trace({})
    assert [job.arrival_s for job in arrivals] == sorted(trace.requests["arrival_s"])
    return trace


def test_each_turn_comes_a_pause_after_the_answer_before():
    requests = run(talk([3], pause_s=0.5, begins_s=[1.0])).requests
    assert requests["arrival_s"].tolist() == pytest.approx([1.0, 1.54, 2.08])
    assert requests["session_id"].tolist() == ["0", "0", "0"]


def test_a_turn_finds_all_full_blocks_of_the_conversation_so_far():
    requests = run(talk([3], begins_s=[0.0])).requests
    # The last token of an answer is never fed back: 5 + 4 - 1 = 8 tokens are computed after one turn, 17 after two.
    assert requests["prompt_tokens"].tolist() == [5, 14, 23]
    assert requests["cached_tokens"].tolist() == [0, 8, 16]
    fresh = run(dataclasses.replace(talk([3], begins_s=[0.0]), grows=False)).requests
    assert fresh["cached_tokens"].tolist() == [0, 0, 0]
    common = run(dataclasses.replace(talk([3], begins_s=[0.0]), grows=False, common_tokens=4)).requests
    assert common["cached_tokens"].tolist() == [0, 4, 4]


def test_sessions_share_nothing_but_what_is_common():
    load = dataclasses.replace(talk([1, 1], new=20, begins_s=[0.0, 5.0]), common_tokens=9)
    assert run(load).requests["cached_tokens"].tolist() == [0, 8]


def test_one_user_is_served_like_nobody_else():
    requests = run(talk([1] * 50, pause_s=0.3, users=1)).requests
    np.testing.assert_allclose(requests["finish_s"] - requests["arrival_s"], 4 * STEP_S)
    np.testing.assert_allclose(np.diff(requests["arrival_s"]), 0.3 + 4 * STEP_S)


@pytest.mark.parametrize("users", [3, 12])
def test_the_response_time_law_of_a_closed_loop(users):
    """Users = throughput x (response time + think time), whatever the queue between (Little's law around the loop)."""
    rng = np.random.default_rng(users)
    load = talk([1] * 6000, users=users)
    load = dataclasses.replace(load, pause_s=rng.exponential(0.1, 6000))
    one_by_one = dataclasses.replace(ENGINE, max_num_seqs=1)
    requests = run(load, FleetSpec(one_by_one)).requests
    inner = requests[(requests["arrival_s"] > 1.0) & (requests["finish_s"] < requests["finish_s"].max() - 1.0)]
    rate = (len(inner) - 1) / (inner["finish_s"].max() - inner["finish_s"].min())
    response_s = (inner["finish_s"] - inner["arrival_s"]).mean()
    assert rate * (response_s + load.pause_s.mean()) == pytest.approx(users, rel=0.03)
    assert rate <= 1 / (4 * STEP_S) + 1e-9, "one server does not serve more than it can"


@st.composite
def crowds(draw):
    """Small fleets and conversations, with troubles."""
    replicas = draw(st.integers(1, 3))
    turns = draw(st.lists(st.integers(1, 4), min_size=1, max_size=8))
    users = draw(st.none() | st.integers(1, 3))
    begins_s = None if users else np.cumsum(draw(st.lists(st.just(0.02), min_size=len(turns), max_size=len(turns))))
    new, output, pause_s = draw(st.integers(1, 30)), draw(st.integers(1, 20)), draw(st.sampled_from([0.0, 0.1]))
    blocks, ahead = draw(st.sampled_from([140, 400])), draw(st.booleans())
    engine = dataclasses.replace(ENGINE, num_blocks=blocks, async_scheduling=ahead)
    faults = tuple(draw(st.lists(faults_of(replicas), max_size=2)))
    router, patience = draw(st.sampled_from(sorted(ROUTERS))), draw(st.none() | PATIENCE)
    fleet = FleetSpec(engine, replicas, router, patience=patience, faults=faults)
    return talk(turns, new, output, pause_s, users, begins_s), fleet


@settings(max_examples=60, deadline=None)
@given(crowds())
def test_jumping_changes_nothing_and_no_turn_is_sent_twice(crowd):
    load, fleet = crowd
    one, other = (run(load, fleet, LinearStep(), fast) for fast in (True, False))
    assert one.steps.equals(other.steps)
    pd.testing.assert_frame_equal(one.requests, other.requests)
    sent = one.requests.groupby("session_id").size()
    for name, rows in enumerate(load.sessions()):
        count = int(sent.get(str(name), 0))
        reasons = one.requests.loc[one.requests["session_id"] == str(name), "finish_reason"]
        assert 1 <= count <= len(rows)
        assert (reasons[:-1] == "length").all(), "a session goes on only after an answer"
        assert count == len(rows) or reasons.iloc[-1] != "length"


def test_turns_come_at_the_rate_asked_for():
    scenario = small(workload__request_rate=5.0, workload__sessions={"turns": "uniform:1:5", "pause_s": 3})
    load = conversations(scenario.workload, None, Draw(60_000, 1, 8192))
    begins_s = load.workload.requests["arrival_s"].to_numpy()
    # some 20,000 sessions: their number in a given time is known to 0.7 %
    assert len(load) / begins_s[-1] == pytest.approx(5.0, rel=0.025)
    lengths = [len(rows) for rows in load.sessions()]
    assert np.mean(lengths) == pytest.approx(3.0, rel=0.02)
    assert set(lengths) <= {1, 2, 3, 4, 5}


def test_a_session_ends_where_its_context_is_full():
    scenario = small(workload__request_rate=5.0, workload__sessions={"turns": 50})
    load = conversations(scenario.workload, None, Draw(2000, 1, 2000))
    totals = load.workload.requests["prompt_tokens"] + load.workload.requests["output_tokens"]
    assert totals.max() <= 2000
    assert totals.max() > 1500


def test_a_scenario_of_users_runs_to_its_steady_state():
    scenario = small(workload__request_rate=None, workload__users={"count": 40, "think_time_s": 0.5})
    result = steady_run(resolve(scenario), 1, is_clear)
    assert result.is_steady
    stay_s = result.latencies["e2e_s"].mean.value
    assert result.request_rate_per_s == pytest.approx(40 / (0.5 + stay_s), rel=0.05)
    with pytest.raises(InputError, match=r"the load is set by workload\.users"):
        resolve(scenario).at_rate(5.0)


def test_a_scenario_of_sessions_reuses_what_was_said():
    scenario = small(
        workload__sessions={"turns": 4, "pause_s": 0.1}, workload__request_rate=20, run__max_requests=9000,
        fleet__router="session_affinity",
    )  # fmt: skip
    anew, cached = (
        steady_run(resolve(with_changes(scenario, {"engine.enable_prefix_caching": caching})), 2, is_clear)
        for caching in (False, True)
    )
    assert anew.is_steady
    assert cached.is_steady
    assert cached.prompt_tokens_per_s == pytest.approx(anew.prompt_tokens_per_s, rel=0.1)
    # of 1,060 prompt tokens on average, 400 are new
    assert cached.latencies["ttft_s"].mean.value < 0.7 * anew.latencies["ttft_s"].mean.value
    assert cached.occupancy.busy < anew.occupancy.busy
