"""The fleet agrees with queueing theory where theory has an answer.

One request at a time, one constant step a token: a replica is then a single server whose service time is the answer's
length times the step. Means come with intervals from batch means; seeds are fixed, intervals those of 1 in 1000.
"""

import numpy as np
import pytest
from scipy import stats

from engine.core.config import EngineConfig
from simulator.fleet.cluster import FleetSpec, simulate
from tests.simulator.fakes import ConstantStep, FirstTokens, workload

STEP_S = 0.01
SERVER = EngineConfig(num_blocks=100, max_num_seqs=1, max_num_batched_tokens=64, enable_prefix_caching=False)


def waits_s(outputs, rate_per_s, seed, num_replicas=1):
    """Time from arrival to the begin of service of each request, under Poisson arrivals."""
    rng = np.random.default_rng(seed)
    load = workload(np.cumsum(rng.exponential(1 / rate_per_s, len(outputs))), 8, outputs)
    fleet = FleetSpec(SERVER, num_replicas, "round_robin")
    first_tokens = FirstTokens()
    simulate(fleet, ConstantStep(STEP_S), load, first_tokens)
    return np.array(first_tokens.ttft_s) - STEP_S


def assert_mean(values, expected, batches=25):
    """`expected` lies in the 99.9 % interval of the mean, by batch means after a warm-up of one batch."""
    means = np.array([part.mean() for part in np.array_split(values, batches)[1:]])
    half = stats.t.ppf(0.9995, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    assert half < 0.2 * expected, "the interval is too wide to tell anything"
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


def test_an_idle_server_serves_at_once():
    waits = waits_s(np.full(200, 1), 0.05, seed=4)
    assert waits == pytest.approx(np.zeros(200), abs=1e-12)
