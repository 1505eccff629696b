"""Laws of drawing: what may come, how often, and what cannot matter."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.core.sampling_params import GREEDY_BELOW
from engine.execution.sampler import sample
from engine.execution.sequence import SETTINGS
from engine.kernels.sampling import CANDIDATES, Filters, draw, greedy, logprobs, uniforms


def filters(rows, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    return Filters(
        torch.full((rows,), temperature),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p),
        torch.full((rows,), min_p),
    )


def drawn(logits, count=4000, **settings):
    """`count` draws from one row of logits at evenly spread uniform numbers."""
    uniform = torch.arange(count, dtype=torch.float64) / count
    return draw(logits.expand(count, -1), filters(count, **settings), uniform)


def frequencies(tokens, vocabulary):
    return torch.bincount(tokens, minlength=vocabulary).double() / len(tokens)


@pytest.fixture
def logits():
    return torch.randn(50, generator=torch.Generator().manual_seed(3)) * 2


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_evenly_spread_numbers_give_the_softmax(logits, temperature):
    got = frequencies(drawn(logits, temperature=temperature), 50)
    # Inversion at n even points puts each token's share within 1 / n of its probability.
    assert (got - torch.softmax(logits.double() / temperature, -1)).abs().max() <= 1 / 4000 + 1e-6


def test_random_seeds_give_the_softmax(logits):
    count, probabilities = 5000, torch.softmax(logits.double(), -1)
    rows = np.zeros(count, SETTINGS)
    rows["temperature"], rows["top_p"], rows["seed"] = 1, 1, np.arange(count)
    tokens = sample(logits.expand(count, -1).contiguous(), rows, np.full(count, 17))
    common = probabilities * count >= 5  # the chi-square law needs expected counts of at least 5
    seen = np.bincount(tokens, minlength=50)[common.numpy()]
    expected = (probabilities * count)[common].numpy()
    seen, expected = np.append(seen, count - seen.sum()), np.append(expected, count - expected.sum())
    assert stats.chisquare(seen, expected).pvalue > 0.001  # fixed seeds: this cannot fail by chance


def test_uniform_numbers_are_uniform_over_seeds_and_over_positions():
    for numbers in (
        uniforms(np.arange(5000, dtype=np.uint64), np.full(5000, 3)),
        uniforms(np.full(5000, 3, np.uint64), np.arange(5000)),
    ):
        assert numbers.min() >= 0 and numbers.max() < 1
        assert stats.kstest(numbers, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.05


def test_top_k_of_one_is_greedy(logits):
    assert (drawn(logits, top_k=1) == greedy(logits[None])[0]).all()


def test_min_p_of_one_is_greedy(logits):
    assert (drawn(logits, min_p=1.0) == greedy(logits[None])[0]).all()


@given(k=st.integers(1, 50))
def test_top_k_draws_from_the_k_likeliest(k):
    logits = torch.randn(50, generator=torch.Generator().manual_seed(k))
    allowed = set(logits.topk(k).indices.tolist())
    assert set(drawn(logits, temperature=3.0, top_k=k).tolist()) == allowed


@given(p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_holds_it(p):
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    probabilities, order = torch.softmax(logits, -1).sort(descending=True)
    needed = int((probabilities.double().cumsum(0) < p).sum()) + 1
    kept = order[:needed]
    got = frequencies(drawn(logits, top_p=p), 50)
    assert set(got.nonzero().flatten().tolist()) <= set(kept.tolist())
    expected = probabilities[:needed].double() / probabilities[:needed].sum()
    assert (got[kept] - expected).abs().max() <= 1 / 4000 + 1e-5


@given(p=st.floats(0.01, 0.99))
def test_min_p_keeps_what_is_likely_enough(p):
    logits = torch.randn(50, generator=torch.Generator().manual_seed(2))
    probabilities = torch.softmax(logits, -1)
    allowed = set((probabilities >= p * probabilities.max()).nonzero().flatten().tolist())
    assert set(drawn(logits, min_p=p).tolist()) <= allowed


def test_top_p_applies_to_what_top_k_leaves():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    # Of the two likeliest, renormalised to 0.57 and 0.43, the first alone holds half.
    assert set(drawn(logits, top_k=2, top_p=0.5).tolist()) == {0}
    assert set(drawn(logits, top_p=0.5).tolist()) == {0, 1}


@pytest.mark.parametrize("settings", [{"top_p": 0.999}, {"top_k": 1400}, {"min_p": 1e-3}])
def test_more_tokens_than_the_first_candidates_may_pass(settings):
    nearly_uniform = torch.linspace(0, 0.5, 1500)
    assert len(drawn(nearly_uniform, count=3000, **settings).unique()) >= 1390 > CANDIDATES


rows = st.tuples(
    st.just(0.0) | st.floats(GREEDY_BELOW, 3), st.integers(0, 60), st.floats(0.1, 1), st.floats(0, 0.5),
    st.integers(0, 2**63 - 1),
)  # fmt: skip


@settings(max_examples=50)
@given(row=rows, neighbours=st.lists(rows, min_size=1, max_size=5))
def test_neighbours_do_not_matter(row, neighbours):
    logits = torch.randn(1 + len(neighbours), CANDIDATES + 500, generator=torch.Generator().manual_seed(0))
    together = np.array([(*values, 0) for values in (row, *neighbours)], SETTINGS)
    positions = np.arange(len(together)) + 5
    both = sample(logits.clone(), together, positions)
    alone = sample(logits[:1].clone(), together[:1], positions[:1])
    assert both[0] == alone[0]


def test_the_same_seed_draws_anew_at_every_position():
    rows = np.zeros(200, SETTINGS)
    rows["temperature"], rows["top_p"], rows["seed"] = 1, 1, 4
    tokens = sample(torch.zeros(200, 1000), rows, np.arange(200))
    assert len(set(tokens.tolist())) > 150


def test_the_lowest_temperature_is_still_a_distribution(logits):
    assert (drawn(logits, temperature=GREEDY_BELOW) == greedy(logits[None])[0]).all()


def test_tokens_as_likely_as_the_last_one_kept_are_kept():
    logits = torch.tensor([1.0, 2.0, 1.0, 0.0, 1.0])
    assert set(drawn(logits, top_k=2).tolist()) == {0, 1, 2, 4}
    assert set(drawn(logits, top_k=1).tolist()) == {1}


def test_draws_go_in_the_order_of_ids_with_filters_or_without(logits):
    for filtered in ({}, {"top_k": 30}, {"top_p": 0.9}, {"min_p": 0.01}):
        assert (drawn(logits, **filtered).diff() >= 0).all()


@given(seed=st.integers(0, 1000), num_top=st.integers(0, 5))
def test_logprobs_are_the_models_own(seed, num_top):
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed))
    tokens = torch.tensor([4, 0, 19])
    got = logprobs(logits, tokens, num_top)
    expected = logits.double().log_softmax(-1)
    for row in range(3):
        order = sorted(range(20), key=lambda token: -logits[row, token])
        assert got.top_ids[row].tolist() == order[:num_top]
        assert got.chosen[row].item() == pytest.approx(expected[row, tokens[row]].item(), abs=1e-5)
        assert got.top[row].tolist() == pytest.approx(expected[row, order[:num_top]].tolist(), abs=1e-5)
