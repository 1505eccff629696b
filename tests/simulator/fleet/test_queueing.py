"""The fleet agrees with queueing theory where theory has an answer, and with the laws that hold for every queue.

One request at a time, one constant step a token: a replica is then a single server whose service time is the answer's
length times the step. Geometric lengths with a short step make service exponential but for half a step. A replica that
takes everybody, in passes whose time is proportional to their number, shares its processor. Means come with intervals
from batch means; seeds are fixed, intervals those of 1 in 1000.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.core.config import EngineConfig
from simulator.fleet.cluster import FleetSpec, simulate
from simulator.output.recorder import TraceRecorder
from tests.simulator.fakes import ConstantStep, FirstTokens, LinearStep, workload
from tests.simulator.fleet.runs import runs

STEP_S = 0.01
SERVER = EngineConfig(num_blocks=100, max_num_seqs=1, max_num_batched_tokens=64, enable_prefix_caching=False)


def waits_s(outputs, rate_per_s, seed, fleet=None, step_s=STEP_S):
    """Time from arrival to the begin of service of each request, in the order of ends, under Poisson arrivals."""
    rng = np.random.default_rng(seed)
    load = workload(np.cumsum(rng.exponential(1 / rate_per_s, len(outputs))), 8, outputs)
    first_tokens = FirstTokens()
    simulate(fleet or FleetSpec(SERVER), ConstantStep(step_s), load, first_tokens)
    return np.array(first_tokens.ttft_s) - step_s


def assert_mean(values, expected, batches=25):
    """`expected` lies in the 99.9 % interval of the mean, by batch means after a warm-up of one batch."""
    means = np.array([part.mean() for part in np.array_split(values, batches)[1:]])
    half = stats.t.ppf(0.9995, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    assert half < 0.25 * expected, "the interval is too wide to tell anything"
    assert abs(means.mean() - expected) < half, (means.mean(), expected, half)


@pytest.mark.parametrize("load", [0.6])
def test_constant_answers_make_an_md1_queue(load):
    service_s = 4 * STEP_S
    waits = waits_s(np.full(12_000, 4), load / service_s, seed=1)
    assert_mean(waits, load * service_s / (2 * (1 - load)))


@pytest.mark.parametrize("load", [0.6])
def test_geometric_answers_make_an_mg1_queue(load):
    """Pollaczek and Khinchine: E[W] = rate * E[S^2] / (2 (1 - load))."""
    outputs = np.random.default_rng(2).geometric(1 / 5, 20_000)
    mean_s, square_s2 = 5 * STEP_S, (2 - 1 / 5) * 25 * STEP_S**2
    rate_per_s = load / mean_s
    assert_mean(waits_s(outputs, rate_per_s, seed=3), rate_per_s * square_s2 / (2 * (1 - load)))


def test_waits_in_mm1_are_exponential_but_for_those_who_do_not_wait():
    """P(W > t) = load * exp(-(1 - load) t / service): every share lies within its own interval."""
    load, mean_tokens = 0.7, 100
    outputs = np.random.default_rng(5).geometric(1 / mean_tokens, 20_000)
    service_s = mean_tokens * STEP_S
    waits = waits_s(outputs, load / service_s, seed=6)
    for t in (0.0, 0.5, 1.0, 2.0, 4.0):
        expected = load * math.exp(-(1 - load) * t)
        assert_mean((waits > t * service_s + 1e-9).astype(float), expected)


@pytest.mark.parametrize("servers", [2, 4])
def test_joining_the_emptiest_of_several_lies_between_one_queue_and_chance(servers):
    """M/M/c (Erlang C) is the least that any router can wait; routing by chance makes c queues of M/M/1."""
    load, mean_tokens = 0.7, 50
    outputs = np.random.default_rng(7).geometric(1 / mean_tokens, 12_000)
    service_s = mean_tokens * STEP_S
    rate_per_s = servers * load / service_s
    waits = {
        name: waits_s(outputs, rate_per_s, 8, FleetSpec(SERVER, servers, name))
        for name in ("least_outstanding", "random")
    }
    one_queue_s = erlang_c(servers, servers * load) * service_s / (servers * (1 - load))
    assert_mean(waits["random"], load * service_s / (1 - load))
    assert one_queue_s < waits["least_outstanding"].mean() < 0.75 * waits["random"].mean()


@pytest.mark.parametrize("servers", [2, 5])
def test_places_on_one_replica_are_the_servers_of_an_mmc_queue(servers):
    """With passes of constant time, `max_num_seqs` places are servers of one queue: Erlang C, but for whole steps."""
    load, mean_tokens = 0.75, 200
    engine = EngineConfig(
        num_blocks=8000, max_num_seqs=servers, max_num_batched_tokens=512, enable_prefix_caching=False
    )
    outputs = np.minimum(np.random.default_rng(9).geometric(1 / mean_tokens, 16_000), 8000)
    service_s = mean_tokens * STEP_S
    waits = waits_s(outputs, servers * load / service_s, 10, FleetSpec(engine))
    # an arrival sees the next boundary, half a step away on average
    expected_s = erlang_c(servers, servers * load) * service_s / (servers * (1 - load)) + STEP_S / 2
    assert_mean(waits, expected_s)


def erlang_c(servers, offered):
    """The share of arrivals that wait in M/M/c at `offered` erlangs."""
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(terms) + last)


@dataclass(frozen=True)
class SharedStep:
    """A pass takes a time proportional to its sequences: each of n gets 1 / n of the processor."""

    per_sequence_s: float

    def seconds(self, work):
        return self.per_sequence_s * (work.num_decode_seqs + work.num_prefill_seqs)

    def decode_run_seconds(self, work, k):
        return np.full(k, self.seconds(work))


@pytest.mark.parametrize("answers", ["constant", "geometric"])
def test_a_shared_processor_is_insensitive_to_the_lengths(answers):
    """M/G/1-PS: the mean stay is service / (1 - load), whatever the distribution of lengths."""
    load, mean_tokens, slice_s = 0.5, 100, 0.001
    rng = np.random.default_rng(11)
    outputs = np.full(7000, mean_tokens) if answers == "constant" else rng.geometric(1 / mean_tokens, 7000)
    service_s = mean_tokens * slice_s
    engine = EngineConfig(num_blocks=40_000, max_num_seqs=512, enable_prefix_caching=False)
    recorder = TraceRecorder(engine)
    arrivals = np.cumsum(rng.exponential(service_s / load, len(outputs)))
    simulate(FleetSpec(engine), SharedStep(slice_s), workload(arrivals, 8, outputs), recorder)
    requests = recorder.trace({}).requests
    stay_s = (requests["finish_s"] - requests["arrival_s"]).to_numpy()
    # whole passes: an arrival waits for the boundary of a pass, a percent of its service
    assert_mean(stay_s, service_s / (1 - load) * 1.01)


@settings(max_examples=60, deadline=None)
@given(runs(trouble=True))
def test_littles_law_holds_on_every_run(run):
    """The area under the number in the system is the sum of the stays, counted by sweeping over the events."""
    fleet, load = run
    recorder = TraceRecorder(fleet.engine)
    simulate(fleet, LinearStep(), load, recorder)
    requests = recorder.trace({}).requests
    arrivals, ends = np.sort(requests["arrival_s"]), np.sort(requests["finish_s"])
    times = np.unique(np.concatenate([arrivals, ends]))
    inside = np.searchsorted(arrivals, times, side="right") - np.searchsorted(ends, times, side="right")
    assert (inside >= 0).all()
    assert inside[-1] == 0
    area = float(inside[:-1] @ np.diff(times))
    assert area == pytest.approx((requests["finish_s"] - requests["arrival_s"]).sum(), rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans())
def test_work_is_conserved(seed, servers, ahead):
    """A server is busy for the sum of its services, and never idle while somebody waits for it."""
    rng = np.random.default_rng(seed)
    load = workload(np.cumsum(rng.exponential(0.05, 40)), 8, rng.integers(1, 12, 40))
    engine = EngineConfig(num_blocks=100, max_num_seqs=1, max_num_batched_tokens=64, async_scheduling=ahead)
    recorder = TraceRecorder(engine)
    replicas = simulate(FleetSpec(engine, servers, "round_robin"), ConstantStep(STEP_S), load, recorder)
    trace = recorder.trace({})
    for replica in replicas:
        mine = trace.requests[trace.requests["replica"] == replica.number].sort_values("arrival_s")
        steps = trace.steps[trace.steps["replica"] == replica.number]
        assert replica.busy_s == pytest.approx(steps["wall_s"].sum())
        # with asynchronous scheduling a step may be decided for a request that has just ended
        wasted = len(steps) - load.requests["output_tokens"].to_numpy()[mine.index].sum()
        assert wasted == 0 if not ahead else 0 <= wasted <= len(mine)
        if not ahead:
            free_s = np.concatenate([[0.0], mine["finish_s"].to_numpy()[:-1]])
            begin_s = np.maximum(mine["arrival_s"].to_numpy(), free_s)
            np.testing.assert_allclose(mine["first_scheduled_s"], begin_s, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_more_replicas_never_hurt(seed):
    """On the same requests, more servers of one kind in turn by least outstanding: the mean wait does not grow."""
    rng = np.random.default_rng(seed)
    load = workload(np.cumsum(rng.exponential(0.02, 300)), 8, 5)
    waits = []
    for servers in (1, 2, 3, 5):
        first = FirstTokens()
        simulate(FleetSpec(SERVER, servers), ConstantStep(STEP_S), load, first)
        waits.append(np.mean(first.ttft_s))
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(waits))


def test_an_idle_server_serves_at_once():
    waits = waits_s(np.full(200, 1), 0.05, seed=4)
    assert waits == pytest.approx(np.zeros(200), abs=1e-12)
