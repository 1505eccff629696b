"""Arrivals come at the rate asked for, whatever the gaps, and follow the curve and the spikes."""

import numpy as np
import pytest

from roofline.errors import InputError
from simulator.arrival_source import arrivals_s
from simulator.scenario_file import from_text, to_yaml, with_changes
from simulator.workload_source import requests
from tests.simulator.scenarios import small

COUNT = 60_000


def times_s(rate=5.0, seed=1, **changes):
    workload = with_changes(
        small(workload__request_rate=rate), {f"workload.{k}": v for k, v in changes.items()}
    ).workload
    return arrivals_s(workload, rate, np.random.default_rng(seed), COUNT)


@pytest.mark.parametrize("gaps", ["gamma", "weibull"])
@pytest.mark.parametrize("shape", [0.5, 1.0, 3.0, float("inf")])
def test_five_is_five(gaps, shape):
    found = times_s(gaps=gaps, burstiness=shape)
    spread = np.diff(found).std() if np.isfinite(shape) else 0.0
    assert abs(found[-1] / COUNT - 0.2) < 4 * spread / np.sqrt(COUNT) + 1e-9


def test_weibull_gaps_have_their_law():
    gaps = np.diff(times_s(gaps="weibull", burstiness=0.5))
    # at shape 1/2 the survival of a gap of t means is exp(-sqrt(2 t))
    for t in (0.1, 0.5, 2.0, 5.0):
        assert (gaps > t * 0.2).mean() == pytest.approx(np.exp(-np.sqrt(2 * t)), abs=0.01)


def test_a_curve_moves_requests_and_keeps_their_mean():
    found = times_s(rate_curve={"period_s": 100, "factors": [1, 3, 0, 4]})
    assert COUNT / found[-1] == pytest.approx(5.0, rel=0.02)
    shares = np.histogram(found % 100, bins=4, range=(0, 100))[0] / COUNT
    assert shares == pytest.approx([1 / 8, 3 / 8, 0, 1 / 2], abs=0.01)


def test_a_spike_adds_its_multiple_where_it_is():
    plain, found = times_s(), times_s(spikes=[{"at_s": 1000, "duration_s": 200, "factor": 5}])
    assert (found[found < 1000] == plain[: (found < 1000).sum()]).all()
    assert ((found >= 1000) & (found < 1200)).sum() == pytest.approx(5 * 5 * 200, rel=0.05)
    assert ((found >= 1200) & (found < 2200)).sum() == pytest.approx(5 * 1000, rel=0.05)
    silent = times_s(spikes=[{"at_s": 1000, "duration_s": 200, "factor": 0}])
    assert not ((silent > 1000) & (silent < 1200)).any()
    assert np.isfinite(silent).all()
    assert (np.diff(silent) >= 0).all()


def test_a_scenario_may_have_all_of_it():
    scenario = small(
        workload__gaps="weibull", workload__rate_curve={"factors": [1, 2], "period_s": 60},
        workload__spikes=[{"at_s": 5, "duration_s": 2, "factor": 3}],
    )  # fmt: skip
    assert from_text(to_yaml(scenario)) == scenario
    table = requests(scenario.workload, None, 500, 3).requests
    assert table["arrival_s"].is_monotonic_increasing
    with pytest.raises(InputError, match="rate_curve and spikes change request_rate"):
        small(workload__request_rate=None, workload__users={"count": 3}, workload__rate_curve={"factors": [1]})
    with pytest.raises(InputError, match="factors are all 0"):
        small(workload__rate_curve={"factors": [0, 0]})
