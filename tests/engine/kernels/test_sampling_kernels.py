"""Drawing on a device: the reference's tokens, whatever the filters, the neighbours and the logits."""

import numpy as np
import pytest
import torch

from engine.kernels.sampling import Filters, uniforms
from engine.kernels.sampling_kernels import Sizes, _uniform
from engine.kernels.triton_language import jit, tl
from tests.engine.kernels.sampling_cases import check_sampling, random_logits, run, settings

SMALL = Sizes(block=64, capacity=128)  # several chunks of a small vocabulary, and lists that overflow


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocabulary", [5, 64, 333])
def test_tokens_are_the_references(device, vocabulary, dtype):
    check_sampling(device, 16, vocabulary, dtype, SMALL)


def test_no_rows(device):
    check_sampling(device, 0, 10, torch.float32, SMALL)


@jit
def _uniforms_kernel(seeds_ptr, positions_ptr, out_ptr):
    row = tl.program_id(0)
    tl.store(out_ptr + row, _uniform(tl.load(seeds_ptr + row), tl.load(positions_ptr + row)))


def test_numbers_are_the_references(device):
    rng = np.random.default_rng(0)
    seeds = np.concatenate([rng.integers(0, 2**63 - 1, 30), [0, 1, 2**63 - 1]])
    positions = rng.integers(0, 2**31 - 1, len(seeds)).astype(np.int32)
    out = torch.zeros(len(seeds), dtype=torch.float64, device=device)
    _uniforms_kernel[(len(seeds),)](torch.from_numpy(seeds).to(device), torch.from_numpy(positions).to(device), out)
    assert np.array_equal(out.cpu().numpy(), uniforms(seeds.view(np.uint64), positions))


def test_neighbours_do_not_matter(device):
    logits, (filters, seeds, positions) = random_logits(8, 200, torch.bfloat16), settings(8, seed=5)
    together = run(device, logits, filters, seeds, positions, SMALL)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    again = run(device, logits[order], filters.at(order), seeds[order], positions[order], SMALL)
    assert torch.equal(again, together[order])


def columns(rows, temperature, top_k=0, top_p=1.0, min_p=0.0):
    filters = Filters(*(torch.full((rows,), float(value)) for value in (temperature, 0, top_p, min_p)))
    filters = filters._replace(top_k=torch.full((rows,), top_k, dtype=torch.int32))
    return filters, torch.arange(rows), torch.full((rows,), 9)


def test_the_lowest_of_equals_is_greedy(device):
    logits = torch.zeros(3, 300)
    logits[0, [70, 140, 299]] = 1.0
    logits[1, [255, 256]] = 7.0
    assert run(device, logits, *columns(3, 0.0), SMALL).tolist() == [70, 255, 0]


@pytest.mark.filterwarnings("ignore:All-NaN")  # numpy's, under the interpreter
@pytest.mark.parametrize("filtered", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.2}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_name_no_token_that_is_not_there(device, temperature, filtered):
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf])
    logits = torch.cat((bad[:, None].expand(3, 130), torch.randn(3, 130)))
    logits[3:, 5] = bad
    tokens = run(device, logits, *columns(6, temperature, **filtered), SMALL)
    assert ((tokens >= 0) & (tokens < 130)).all()


@pytest.mark.parametrize(("filtered", "allowed"), [({"top_k": 3}, {3, 10, 20, 70, 80}), ({"top_p": 0.1}, {3, 80})])
def test_tokens_as_likely_as_the_last_one_kept_are_kept(device, filtered, allowed):
    logits = torch.zeros(1, 100)
    logits[0, [3, 80]], logits[0, [10, 20, 70]] = 2.1, 2.0
    tokens = run(device, logits.expand(24, -1).contiguous(), *columns(24, 1.0, **filtered), SMALL)
    assert set(tokens.tolist()) == allowed
