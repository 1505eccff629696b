"""A run answers from a steady state or says that it has none."""

import numpy as np
import pytest

from simulator.deployment import resolve
from simulator.planning.probes import saturated_rate_per_s
from simulator.planning.steady import steady_run
from tests.simulator.scenarios import small

CROWD = {"workload__output_tokens": "uniform:40:80", "engine__max_num_seqs": 512}


@pytest.fixture(scope="module")
def crowd():
    """The rate that 13 replicas would just serve if they never ran out of work."""
    return 13.0 * saturated_rate_per_s(resolve(small(**CROWD)))


@pytest.mark.parametrize("replicas", [8, 12])
def test_a_short_run_of_an_overloaded_fleet_is_no_answer(crowd, replicas):
    """A thousand requests of an overloaded fleet settle nothing; a longer run shows that it never keeps up."""
    short = small(workload__request_rate=crowd, run__min_requests=100, run__max_requests=1000, **CROWD)
    first = steady_run(resolve(short), replicas)
    assert not first.is_steady
    assert not first.meets_targets
    last = steady_run(resolve(small(workload__request_rate=crowd, run__max_requests=30_000, **CROWD)), replicas)
    assert last.verdict == "unstable"
    growing = float(last.reason.split("grows by ")[1].split()[0])
    assert crowd - growing == pytest.approx(crowd * replicas / 13, rel=0.1)


def test_sixteen_replicas_hold_it(crowd):
    result = steady_run(resolve(small(workload__request_rate=crowd, run__max_requests=40_000, **CROWD)), 16)
    assert result.is_steady, result.reason
    assert result.request_rate_per_s == pytest.approx(crowd, rel=0.03)


def test_littles_law():
    """Requests in the fleet = rate x stay, counted twice: time averages of the steps, and stamps of the requests."""
    result = steady_run(resolve(small()), 2)
    assert result.is_steady
    counted = result.occupancy.mean_running * result.occupancy.busy * result.replicas
    stay_s = result.latencies["e2e_s"].mean.value
    assert counted == pytest.approx(result.request_rate_per_s * stay_s, rel=0.05)


def test_throughput_is_the_offered_load():
    result = steady_run(resolve(small()), 2)
    assert result.request_rate_per_s == pytest.approx(40.0, rel=0.06)
    assert result.prompt_tokens_per_s == pytest.approx(400 * result.request_rate_per_s)
    assert result.output_tokens_per_s == pytest.approx(40 * result.request_rate_per_s, rel=0.03)


def test_the_same_seed_gives_the_same_figures_and_another_does_not():
    first, again, other = (steady_run(resolve(small(seed=seed)), 2) for seed in (1, 1, 2))
    assert first.latencies == again.latencies
    assert first.occupancy == again.occupancy
    assert first.latencies != other.latencies


def test_samples_are_those_of_the_figures():
    result = steady_run(resolve(small()), 2)
    ttft = result.samples_s["ttft_s"]
    assert len(ttft) == result.num_requests
    assert result.latencies["ttft_s"].p90.value == pytest.approx(np.percentile(ttft, 90))


def test_progress_counts_requests():
    told = []
    steady_run(resolve(small()), 2, progress=told.append)
    assert sum(told) >= 400
