"""Intervals hold the truth as often as they say, for series whose values depend on their neighbours too."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.planning.interval import mean_estimate, percentile_estimate, share_estimate

SERIES = 200  # of each kind: 95 % coverage then comes out within about 4 %


def autoregressive(rng, count, memory):
    """Zero mean, unit variance, neighbours correlated by `memory`."""
    noise = rng.normal(size=count) * math.sqrt(1 - memory**2)
    values = np.empty(count)
    values[0] = rng.normal()
    for i in range(1, count):
        values[i] = memory * values[i - 1] + noise[i]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_means_are_covered(memory):
    rng = np.random.default_rng(1)
    found = [mean_estimate(autoregressive(rng, 1600, memory)) for _ in range(SERIES)]
    assert np.mean([e.low < 0 < e.high for e in found]) > 0.89


def test_without_batches_dependence_would_be_missed():
    rng = np.random.default_rng(1)
    series = [autoregressive(rng, 1600, 0.9) for _ in range(SERIES)]
    naive = [abs(s.mean()) < 1.96 * s.std() / math.sqrt(len(s)) for s in series]
    assert np.mean(naive) < 0.6


@pytest.mark.parametrize(("percent", "truth"), [(50, 0.0), (90, 1.2815516), (99, 2.3263479)])
@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_percentiles_are_covered(percent, truth, memory):
    rng = np.random.default_rng(2)
    found = [percentile_estimate(autoregressive(rng, 2400, memory), percent) for _ in range(SERIES)]
    assert np.mean([e.low < truth < e.high for e in found]) > 0.88


def test_a_tail_too_thin_to_tell_has_no_upper_bound():
    assert percentile_estimate(np.random.default_rng(3).exponential(size=100), 99).high == math.inf


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(1, 99))
def test_a_figure_lies_in_its_interval(values, percent):
    estimate = percentile_estimate(np.array(values), percent)
    assert estimate.low <= estimate.value <= estimate.high


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_a_share_stays_a_share(kept):
    estimate = share_estimate(np.array(kept, dtype=float))
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_agreement_of_all_is_not_certainty():
    assert share_estimate(np.ones(300)).low <= 0.99
