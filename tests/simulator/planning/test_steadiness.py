"""Steady, filling up and overloaded are told apart, on queues whose behaviour theory knows."""

import numpy as np
import pytest

from engine.core.config import EngineConfig
from simulator.output.collector import Collector
from simulator.planning.steadiness import drift, growth, overloaded, stays, warmup

RATE_PER_S = 10.0


def queue(load, count, seed=0):
    """What a collector holds after `count` arrivals at a single server with exponential service (M/M/1)."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / RATE_PER_S, count))
    service_s = rng.exponential(load / RATE_PER_S, count)
    finish_s, free_s = np.empty(count), 0.0
    for i in range(count):
        free_s = max(free_s, arrival_s[i]) + service_s[i]
        finish_s[i] = free_s
    collected = Collector(arrival_s, EngineConfig(num_blocks=2), lambda work: (None, True), lambda _: False, ())
    collected.now_s = arrival_s[-1]
    seen = finish_s <= collected.now_s
    collected.finish_s[seen] = finish_s[seen]
    collected.in_service_s[seen] = service_s[seen]
    for metric, values in (("ttft_s", finish_s - service_s - arrival_s), ("e2e_s", finish_s - arrival_s)):
        collected.latencies_s[metric][seen] = values[seen]
    collected.latencies_s["tpot_s"][seen] = service_s[seen]
    collected.num_finished = int(seen.sum())
    return collected


def at(collected, fraction):
    """The same queue seen earlier."""
    earlier = Collector(collected.arrival_s, EngineConfig(num_blocks=2), lambda w: (None, True), lambda _: False, ())
    earlier.now_s = collected.now_s * fraction
    for ours, theirs in ((earlier.finish_s, collected.finish_s), (earlier.in_service_s, collected.in_service_s)):
        seen = collected.finish_s <= earlier.now_s
        ours[seen] = theirs[seen]
    return earlier


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_stable_queue_does_not_drift(load, seed):
    collected = queue(load, 8000, seed)
    assert drift(collected, 1000) is None


def ever_overloaded(collected):
    """Whether one of the looks that a run takes at itself finds overload."""
    looks = [at(collected, fraction) for fraction in (0.3, 0.45, 0.67, 1.0)]
    return any(overloaded(look, growth(at(look, 0.5)), RATE_PER_S) for look in looks)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("load", [1.1, 1.5, 3.0])
def test_overload_is_seen_and_measured(load, seed):
    collected = queue(load, 20_000, seed)
    assert ever_overloaded(collected)
    assert growth(collected).rate_per_s == pytest.approx(RATE_PER_S * (1 - 1 / load), rel=0.4)
    assert drift(collected, 1000) is not None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("load", [0.5, 0.8, 0.95])
def test_a_stable_queue_is_never_called_overloaded(load, seed):
    assert not ever_overloaded(queue(load, 10_000, seed))


def test_filling_up_is_not_overload():
    """A fleet of infinitely many servers with service of 50 s fills as 1 - exp(-t / 50): it grows, then slows down."""
    rng = np.random.default_rng(0)
    arrival_s = np.cumsum(rng.exponential(0.1, 1500))
    stay_s = rng.exponential(50.0, 1500)
    collected = queue(0.1, 1500)
    collected.arrival_s[:] = arrival_s
    collected.now_s = float(arrival_s[-1])
    finish_s = arrival_s + stay_s
    collected.finish_s[:] = np.where(finish_s <= collected.now_s, finish_s, np.nan)
    collected.in_service_s[:] = np.where(finish_s <= collected.now_s, stay_s, np.nan)
    assert not overloaded(collected, growth(at(collected, 0.5)), RATE_PER_S)


def test_the_warm_up_is_cut():
    rng = np.random.default_rng(0)
    series = rng.normal(10, 1, 4000)
    series[:600] += np.linspace(-9, 0, 600)
    assert 250 <= warmup(series) <= 1000
    assert warmup(series[600:]) <= 1700


def test_stays_count_how_often_a_request_fits():
    collected = queue(0.5, 4000)
    mean_stay_s = np.nanmean(collected.latencies_s["e2e_s"])
    assert stays(collected, 0) == pytest.approx(collected.now_s / mean_stay_s, rel=0.02)
    assert stays(collected, collected.num_complete - 1) == 0.0
