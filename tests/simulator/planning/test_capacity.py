"""A capacity is where the targets begin to be missed, for several seeds, and its interval says how sure it is."""

import math

import numpy as np
import pytest

from roofline.errors import InfeasibleError, InputError
from simulator.deployment import resolve
from simulator.output.exports import capacity_json
from simulator.planning.capacity import FINE, Effort, capacity
from simulator.planning.criteria import keeps
from simulator.planning.interval import independent_mean
from simulator.planning.plan import plan
from simulator.planning.steady import steady_run
from tests.simulator.scenarios import small


@pytest.fixture(scope="module")
def found():
    return capacity(small(fleet__replicas=1), effort=Effort(seeds=4))


def test_it_lies_between_what_is_kept_and_what_is_missed(found):
    assert keeps(found.kept)
    assert not keeps(found.missed)
    assert found.kept.offered_rate_per_s < found.by_seed[0].rate_per_s < found.missed.offered_rate_per_s
    assert found.missed.offered_rate_per_s <= (1 + FINE) * found.kept.offered_rate_per_s


def test_the_interval_is_that_of_the_seeds_and_holds_their_mean(found):
    rates = np.array([one.rate_per_s for one in found.by_seed])
    assert [one.seed for one in found.by_seed] == [0, 1, 2, 3]
    assert found.rate_per_s == pytest.approx(rates.mean())
    reach = 3.182 * rates.std(ddof=1) / 2  # Student's t of 3 degrees of freedom, 97.5 %, over the root of 4
    assert found.rate.high - found.rate_per_s >= 0.999 * reach
    assert found.rate.low < found.rate_per_s < found.rate.high


def test_unasked_seeds_fall_around_it(found):
    """Seeds that took no part keep a load below the interval and miss one above it."""
    for seed in (11, 12):
        deployment = resolve(small(fleet__replicas=1, seed=seed, run__max_requests=6000))
        assert keeps(steady_run(deployment.at_rate(0.9 * found.rate.low), 1))
        assert not keeps(steady_run(deployment.at_rate(1.1 * found.rate.high), 1))


def test_slower_steps_leave_less(found):
    """Were every pass 30 % slower, the fleet would serve about 1 / 1.3 of it: the interval with doubt reaches there."""
    low, high = found.with_doubt
    assert low < 0.9 * found.rate.low and high > 1.1 * found.rate.high
    assert "arithmetic" in found.doubt


def test_a_plan_agrees(found):
    assert plan(small(workload__request_rate=0.85 * found.rate_per_s)).replicas == 1
    assert plan(small(workload__request_rate=1.2 * found.rate_per_s)).replicas > 1


def test_twice_the_replicas_serve_at_least_twice_as_much(found):
    """Pooling never hurts: two replicas share what one of them could not."""
    twice = capacity(small(fleet__replicas=2), effort=Effort(seeds=2, doubt=False))
    assert twice.rate_per_s > 1.95 * found.rate_per_s
    assert twice.gpus == 2 and twice.rate_per_gpu_s == pytest.approx(twice.rate_per_s / 2)


def test_one_seed_has_no_interval_and_says_so():
    alone = capacity(small(), effort=Effort(seeds=1, doubt=False))
    assert math.isinf(alone.rate.high)
    document = capacity_json(alone)
    assert document["interval"] == {"low": 0.0, "high": None, "confidence": 0.95}
    assert document["rate_per_s"] == alone.by_seed[0].rate_per_s


def test_the_interval_of_independent_values_covers():
    rng = np.random.default_rng(3)
    covers = [
        estimate.low < 7.0 < estimate.high
        for estimate in (independent_mean(rng.normal(7.0, 2.0, size=4)) for _ in range(2000))
    ]
    assert np.mean(covers) == pytest.approx(0.95, abs=0.015)  # three standard errors of 2,000 trials


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [({"slo": {"ttft_ms": 1}}, InfeasibleError, "slo.ttft_ms is 1"), ({"slo": {}}, InputError, "slo is empty")],
)
def test_a_question_without_an_answer_gets_a_reason(changes, error, told):
    with pytest.raises(error, match=told):
        capacity(small(**changes))


def test_no_seeds_are_refused():
    with pytest.raises(InputError, match="seeds is 0"):
        Effort(seeds=0)
