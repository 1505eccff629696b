import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline.errors import InputError
from roofline.scaling_law import BESIROGLU, HOFFMANN, Demand, ScalingLaw, cheapest, plan_for, rule_of_thumb

LOSSES = st.floats(1.9, 3.0)


def test_chinchilla_itself():
    """70 billion parameters on 1.4e12 tokens: 5.76e23 FLOPs as the paper counts, 5.88e23 as 6 N D."""
    parameters, tokens = rule_of_thumb(5.88e23)
    assert parameters == pytest.approx(70e9, rel=0.01)
    assert tokens == pytest.approx(1.4e12, rel=0.01)


@given(LOSSES)
def test_without_demand_no_other_size_reaches_the_loss_for_less(loss):
    best = cheapest(loss)
    assert best.loss == pytest.approx(loss)
    for factor in (0.5, 0.9, 1.1, 2.0):
        tokens = HOFFMANN.tokens_for(loss, best.parameters * factor)
        if math.isfinite(tokens):
            assert plan_for(best.parameters * factor, tokens, Demand()).train_flops >= best.train_flops


@given(LOSSES)
def test_the_optimum_without_demand_is_the_papers_closed_form(loss):
    """At a fixed budget dL = 0 along N D = constant, so a A / N^a = b B / D^b."""
    best, law = cheapest(loss), HOFFMANN
    of_size = law.size_exponent * law.size_factor / best.parameters**law.size_exponent
    of_data = law.data_exponent * law.data_factor / best.tokens**law.data_exponent
    assert of_size == pytest.approx(of_data, rel=1e-3)


@settings(deadline=None)
@given(LOSSES, st.floats(1e9, 1e14), st.sampled_from([HOFFMANN, BESIROGLU]))
def test_the_more_it_serves_the_smaller_and_longer_trained(loss, tokens, law):
    little, much = (cheapest(loss, Demand(output_tokens=amount), law) for amount in (tokens, 4 * tokens))
    assert much.parameters <= little.parameters * (1 + 1e-6)
    assert much.tokens >= little.tokens * (1 - 1e-6)
    assert much.lifetime_flops > little.lifetime_flops
    assert little.loss == pytest.approx(much.loss)


def test_a_13b_that_serves_two_trillion_tokens_is_better_a_7b():
    """Sardana et al., 2024: the 7B saves 1.7e22 FLOPs, 17 % of the total."""
    demand = Demand(prompt_tokens=2e12)
    budget = min(
        (cheapest(loss) for loss in [1.9 + 0.0005 * step for step in range(2000)]),
        key=lambda plan: abs(plan.parameters - 13e9),
    )
    thirteen = plan_for(budget.parameters, budget.tokens, demand)
    seven = plan_for(7e9, HOFFMANN.tokens_for(budget.loss, 7e9), demand)
    saved = thirteen.lifetime_flops - seven.lifetime_flops
    assert saved == pytest.approx(1.7e22, rel=0.03)
    assert saved / thirteen.lifetime_flops == pytest.approx(0.17, abs=0.01)


def test_writing_answers_at_a_low_mfu_weighs_more_than_reading_prompts():
    cheap, dear = Demand(prompt_tokens=1e12), Demand(output_tokens=1e12, output_mfu=0.05)
    assert cheapest(2.2, dear).parameters < cheapest(2.2, cheap).parameters


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"no model gets below 1\.69"):
        cheapest(1.6)
    with pytest.raises(InputError, match="output_tokens = -1"):
        Demand(output_tokens=-1)
    with pytest.raises(InputError, match="train_mfu = 0"):
        Demand(train_mfu=0)
    with pytest.raises(InputError, match="budget of 0"):
        rule_of_thumb(0)
    assert math.isinf(ScalingLaw().tokens_for(1.7, 10.0))
