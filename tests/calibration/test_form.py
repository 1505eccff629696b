"""The physical form: scalars, arrays and slopes are one function, and more work never takes less time."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.form import JOINS, SCOPES, TERMS, StepTimeForm, features, predict, slopes
from calibration.measurements import WORK_COLUMNS
from tests.calibration.synthetic import random_works
from tests.roofline.step_time_laws import check_step_time_laws

COSTS = np.array([1e-3, 4.003e-3, 2e-5, 1e-9, 2e-8, 6e-8, 1e-7, 3e-4, 1.5e-5])
SHAPES = list(itertools.product(JOINS, SCOPES))


def form(join, scope, costs=COSTS):
    return StepTimeForm(*map(float, costs), join=join, scope=scope)


def arrays(works):
    return {name: np.array([getattr(work, name) for work in works], dtype=float) for name in WORK_COLUMNS}


@pytest.mark.parametrize(("join", "scope"), SHAPES)
def test_step_time_laws(join, scope):
    check_step_time_laws(form(join, scope), max_examples=50)


@pytest.mark.parametrize(("join", "scope"), SHAPES)
def test_arrays_agree_with_scalars(join, scope):
    works = random_works(300, np.random.default_rng(1))
    expected = [form(join, scope).seconds(work) for work in works]
    np.testing.assert_allclose(predict(features(arrays(works)), COSTS, join, scope), expected, rtol=1e-12)


@pytest.mark.parametrize(("join", "scope"), SHAPES)
def test_a_decode_run_is_bit_for_bit_its_steps(join, scope):
    # A simulator that advances many steps at once must stamp the very times of one that goes step by step.
    works = [work for work in random_works(60, np.random.default_rng(2)) if not work.num_prefill_seqs]
    for work in works:
        model = form(join, scope)
        assert model.decode_run_seconds(work, 40).tolist() == [
            model.seconds(work.after_decode_steps(step)) for step in range(40)
        ]


@pytest.mark.parametrize(("join", "scope"), SHAPES)
def test_slopes_are_the_derivative(join, scope):
    amounts = features(arrays(random_works(100, np.random.default_rng(3))))
    analytic = slopes(amounts, COSTS, join, scope)
    for term in range(len(TERMS)):
        step = np.zeros(len(TERMS))
        step[term] = COSTS[term] * 1e-4
        numeric = (predict(amounts, COSTS + step, join, scope) - predict(amounts, COSTS - step, join, scope)) / (
            2 * step[term]
        )
        np.testing.assert_allclose(analytic[:, term], numeric, rtol=1e-4, atol=1e-9 * abs(amounts[:, term]).max())


@given(st.sampled_from(SHAPES), st.lists(st.floats(0, 1), min_size=9, max_size=9), st.floats(0.01, 100))
def test_scaling_every_cost_scales_the_time(shape, costs, factor):
    works = random_works(5, np.random.default_rng(4))
    for work in works:
        once, scaled = (
            form(*shape, costs=costs).seconds(work),
            form(*shape, costs=np.array(costs) * factor).seconds(work),
        )
        assert scaled == pytest.approx(once * factor, rel=1e-9)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_sharper_join_is_never_slower(scope):
    for work in random_works(100, np.random.default_rng(5)):
        times = [form(join, scope).seconds(work) for join in ("max", "root4", "root2", "sum")]
        assert times == sorted(times)
