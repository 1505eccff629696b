"""Drawing at the sizes of real models: the oracle's tokens, the right frequencies, and graphs that can be replayed."""

import pytest
import torch
from scipy import stats

from engine.kernels.sampling import Filters, logprobs, sample
from tests.engine.kernels.sampling_cases import check_sampling, random_logits, settings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocabulary", [49152, 151936])
@pytest.mark.parametrize("rows", [1, 48])
def test_tokens_are_the_references(device, rows, vocabulary, dtype):
    check_sampling(device, rows, vocabulary, dtype)


@pytest.mark.parametrize("filtered", [{}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.05}], ids=str)
def test_frequencies_are_the_probabilities(device, filtered):
    count, vocabulary = 20000, 60
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(3)) * 2
    options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | filtered
    columns = (torch.full((count,), value, device=device) for value in options.values())
    rows = logits.to(device).expand(count, -1).contiguous()
    places = torch.full((count,), 17, device=device)
    tokens = sample(rows, Filters(*columns), torch.arange(count, device=device), places).cpu()
    masses = torch.softmax(logits.double(), -1)
    order = masses.argsort(descending=True)
    kept = {
        "top_k": order[:20],
        "top_p": order[: int((masses[order].cumsum(0) < 0.8).sum()) + 1],
        "min_p": (masses >= 0.05 * masses.max()).nonzero()[:, 0],
    }.get(next(iter(filtered), ""), order)
    seen = torch.bincount(tokens, minlength=vocabulary)
    assert seen[kept].sum() == count
    expected = masses[kept] / masses[kept].sum() * count
    common = expected >= 5  # the chi-square law needs expected counts of at least 5
    seen, expected = seen[kept][common].double(), expected[common]
    rest = count - expected.sum()
    if rest > 1e-6:
        seen, expected = torch.cat((seen, count - seen.sum()[None])), torch.cat((expected, rest[None]))
    assert stats.chisquare(seen, expected).pvalue > 0.001  # fixed seeds: this cannot fail by chance


def test_a_graph_draws_what_plain_launches_do(device):
    logits = random_logits(8, 32768, torch.bfloat16).to(device)
    filters, seeds, positions = settings(8)
    filters = Filters(*(column.to(device) for column in filters))
    seeds, positions = seeds.to(device), positions.to(device)
    before = sample(logits, filters, seeds, positions)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = sample(logits, filters, seeds, positions)
    graph.replay()
    assert torch.equal(captured, before)
    positions += 1
    graph.replay()
    assert torch.equal(captured, sample(logits, filters, seeds, positions))


def test_logprobs(device):
    logits = random_logits(4, 5000, torch.float32)
    tokens = logits.argsort(-1)[:, -7]
    got = logprobs(logits.to(device), tokens.to(device), 5)
    expected = logits.double().log_softmax(-1)
    top, top_ids = expected.topk(5)
    torch.testing.assert_close(
        got.chosen.cpu().double(), expected.gather(1, tokens[:, None])[:, 0], atol=1e-5, rtol=1e-6
    )
    torch.testing.assert_close(got.top.cpu().double(), top, atol=1e-5, rtol=1e-6)
    assert torch.equal(got.top_ids.cpu(), top_ids)
