"""Prompts here, answers there: a transfer takes its bytes over its share of the link, and nothing is computed twice."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.config import EngineConfig
from roofline.errors import InputError
from simulator.deployment import resolve
from simulator.fleet.autoscaler import Autoscaling
from simulator.fleet.clock import ARRIVAL, VirtualClock
from simulator.fleet.cluster import FleetSpec, RunOptions, simulate
from simulator.fleet.disaggregation import Split
from simulator.fleet.faults import Crash
from simulator.fleet.interconnect import Link
from simulator.fleet.patience import Patience
from simulator.output.recorder import TraceRecorder
from simulator.planning.criteria import is_clear
from simulator.planning.steady import steady_run
from simulator.scenario_file import from_text, to_yaml
from tests.simulator.fakes import ConstantStep, workload
from tests.simulator.scenarios import small

STEP_S = 0.01
ENGINE = EngineConfig(num_blocks=400, max_num_seqs=8, max_num_batched_tokens=512, max_model_len=512)
SPLIT = Split(1, 1000.0, 1e6)


def served(fleet, load):
    recorder = TraceRecorder(fleet.engine)
    simulate(fleet, ConstantStep(STEP_S), load, recorder, RunOptions(record_token_times=True))
    return recorder.trace({})


def ends_s(sizes, starts_s, rate=10.0):
    """When transfers end that begin at these times."""
    clock, ends = VirtualClock(), [0.0] * len(sizes)
    link = Link(clock, rate)

    def begin(number):
        def deliver():
            ends[number] = clock.now

        return lambda _: link.send(sizes[number], deliver)

    for number, start_s in enumerate(starts_s):
        clock.call_at(start_s, ARRIVAL, begin(number))
    clock.run()
    return ends


def test_a_transfer_takes_its_bytes_over_its_share():
    assert ends_s([50.0], [1.0]) == [6.0]
    assert ends_s([50.0, 50.0], [0.0, 0.0]) == pytest.approx([10.0, 10.0])
    # alone for 2 s (20 bytes), shared until the first has its other 30 at 8; the second then has 20 left: 2 s
    assert ends_s([50.0, 50.0], [0.0, 2.0]) == pytest.approx([8.0, 10.0])
    assert ends_s([10.0, 100.0, 10.0], [0.0, 0.0, 0.0]) == pytest.approx([3.0, 12.0, 3.0])


@given(st.lists(st.tuples(st.floats(0.1, 99), st.floats(0, 9)), min_size=1, max_size=9))
def test_the_link_is_never_idle_and_never_faster_than_it_is(transfers):
    sizes, starts_s = zip(*sorted(transfers, key=lambda one: one[1]), strict=True)
    ends = ends_s(sizes, starts_s)
    free_s = 0.0
    for size, start_s in zip(sizes, starts_s, strict=True):  # work conservation: whoever's turn it is
        free_s = max(free_s, start_s) + size / 10.0
    assert max(ends) == pytest.approx(free_s)
    assert all(
        end_s >= start_s + size / 10.0 - 1e-9 for size, start_s, end_s in zip(sizes, starts_s, ends, strict=True)
    )


def test_the_first_token_comes_from_one_replica_and_the_rest_after_the_transfer():
    trace = served(FleetSpec(ENGINE, 2, split=dataclasses.replace(SPLIT, link_latency_s=0.002)), workload([0.0], 40, 4))
    # 40 tokens of 1,000 bytes at a million a second: 40 ms, and 2 ms besides
    token_times_s = trace.requests["token_times_s"][0].tolist()
    assert token_times_s == pytest.approx([0.01, 0.062, 0.072, 0.082])
    steps = trace.steps
    assert steps["replica"].tolist() == [0, 1, 1, 1]
    assert steps["prefill_tokens"].tolist() == [40, 1, 0, 0]
    assert steps["prefill_kv_tokens"].tolist() == [0, 40, 0, 0]
    assert steps["decode_kv_tokens"].tolist() == [0, 0, 41, 42]
    assert trace.requests["first_scheduled_s"][0] == 0.0


@pytest.mark.parametrize("caching", [False, True])
def test_every_token_is_computed_once(caching):
    rng = np.random.default_rng(3)
    prompts, answers = rng.integers(1, 300, 60), rng.integers(1, 40, 60)
    engine = dataclasses.replace(ENGINE, num_blocks=2000, enable_prefix_caching=caching)
    load = workload(np.arange(60) * 0.01, prompts, answers)
    trace = served(FleetSpec(engine, 4, split=dataclasses.replace(SPLIT, prefill_replicas=2)), load)
    by = trace.steps.groupby(trace.steps["replica"] < 2)[["prefill_tokens", "decode_tokens"]].sum()
    assert by.loc[True].tolist() == [prompts.sum(), 0]
    assert by.loc[False].sum() == (answers - 1).sum()
    assert (trace.requests["output_tokens"].to_numpy() == answers).all()


def test_a_prompt_of_one_token_answers_does_not_travel():
    trace = served(FleetSpec(ENGINE, 2, split=SPLIT), workload([0.0], 40, 1))
    assert trace.requests["finish_s"].tolist() == [0.01]
    assert set(trace.steps["replica"]) == {0}


def test_answers_do_not_wait_for_prompts_of_others():
    """Long prompts stretch the steps of answers on shared replicas, and not on split ones."""

    @dataclasses.dataclass(frozen=True)
    class ByTokens:
        def seconds(self, work):
            return 0.005 + 0.001 * work.num_tokens

        def decode_run_seconds(self, work, k):
            return np.full(k, self.seconds(work))

    load, gaps = workload(np.arange(40) * 0.25, 200, 60), {}
    for name, split in (("shared", None), ("split", dataclasses.replace(SPLIT, link_bytes_per_s=1e9))):
        recorder = TraceRecorder(ENGINE)
        simulate(FleetSpec(ENGINE, 2, split=split), ByTokens(), load, recorder, RunOptions(record_token_times=True))
        times = recorder.trace({}).requests["token_times_s"]
        gaps[name] = np.percentile(np.concatenate([np.diff(of_one)[1:] for of_one in times]), 99)
    assert gaps["split"] < 0.05 < gaps["shared"]


def test_either_half_may_fail():
    for number, tokens in ((0, 0), (1, 3)):
        fleet = FleetSpec(ENGINE, 2, split=SPLIT, faults=(Crash(number, 0.005 if number == 0 else 0.075),))
        requests = served(fleet, workload([0.0], 40, 9)).requests
        assert requests["finish_reason"].tolist() == ["failed"]
        assert requests["output_tokens"].tolist() == [tokens]


def test_a_client_may_leave_during_the_transfer():
    fleet = FleetSpec(ENGINE, 2, split=SPLIT, patience=Patience(timeout_s=0.03))
    trace = served(fleet, workload([0.0], 40, 9))
    assert trace.requests["finish_reason"].tolist() == ["timeout"]
    assert trace.requests["output_tokens"].tolist() == [1]
    assert set(trace.steps["replica"]) == {0}


def test_a_scenario_may_split_its_fleet():
    parts = {"prefill_share": 0.5, "link_gb_per_s": 50, "link_latency_ms": 1}
    scenario = small(fleet__disaggregation=parts, fleet__replicas=4)
    assert from_text(to_yaml(scenario)) == scenario
    # Llama-3.1-8B: 32 layers x 2 x 8 heads x 128 x 2 bytes
    assert resolve(scenario).fleet(4).split == Split(2, 131_072, 50e9, 0.001)
    result = steady_run(resolve(scenario), 4, is_clear)
    assert result.is_steady
    assert result.occupancy.preemptions_per_request == 0
    with pytest.raises(InputError, match="1 of 1 replicas compute prompts only"):
        resolve(small(fleet__disaggregation=parts)).fleet(1)
    with pytest.raises(InputError, match="does not know which of two kinds"):
        FleetSpec(ENGINE, 2, split=SPLIT, autoscaling=Autoscaling(3, 1.0))
