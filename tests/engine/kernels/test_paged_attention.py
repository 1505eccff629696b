"""Paged attention against attention written out, on blocks scattered in memory."""

import math

import pytest
import torch

from engine.kernels.paged_attention import decode_attention, prefill_attention
from engine.kernels.rope import write_kv

BLOCK_SIZE, HEAD_DIM = 4, 8
# Two orders of float32 sums over at most 30 values of order one.
TOLERANCE = {"atol": 2e-6, "rtol": 1e-5}


def written_out(q, k, v, position):
    """One query [heads, head_dim] at `position` of keys and values [tokens, kv_heads, head_dim], in float64."""
    group = q.shape[0] // k.shape[1]
    out = []
    for head in range(q.shape[0]):
        keys, values = (x[: position + 1, head // group].double() for x in (k, v))
        weights = torch.softmax(keys @ q[head].double() / math.sqrt(q.shape[-1]), 0)
        out.append(weights @ values)
    return torch.stack(out).float()


class Scene:
    """Sequences of given lengths with random keys and values, in blocks in random order."""

    def __init__(self, lengths, num_kv_heads, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        blocks = [-(-length // BLOCK_SIZE) for length in lengths]
        size = (sum(blocks) + 3, BLOCK_SIZE, num_kv_heads, HEAD_DIM)
        self.k_cache, self.v_cache = self.random(*size), self.random(*size)  # garbage where nothing is written
        order = (torch.randperm(size[0] - 1, generator=self.generator) + 1).tolist()
        self.tables = torch.zeros(len(lengths), max(blocks), dtype=torch.int64)
        self.keys, self.values = [], []
        for row, (length, count) in enumerate(zip(lengths, blocks, strict=True)):
            self.tables[row, :count] = torch.tensor([order.pop() for _ in range(count)])
            at = torch.arange(length)
            slots = self.tables[row, at // BLOCK_SIZE] * BLOCK_SIZE + at % BLOCK_SIZE
            for cache, kept in ((self.k_cache, self.keys), (self.v_cache, self.values)):
                kept.append(self.random(length, num_kv_heads, HEAD_DIM))
                write_kv(cache, kept[-1], slots)

    def random(self, *size):
        return torch.randn(size, generator=self.generator)


@pytest.mark.parametrize("group", [1, 3, 4, 7, 8])
def test_decode_over_odd_lengths(group):
    lengths = [1, 4, 5, 30, 17]
    scene = Scene(lengths, num_kv_heads=2)
    q = scene.random(len(lengths), 2 * group, HEAD_DIM)
    padded = scene.tables.shape[1] * BLOCK_SIZE
    mask = torch.zeros(len(lengths), 1, 1, padded)
    mask.masked_fill_(torch.arange(padded) >= torch.tensor(lengths)[:, None, None, None], -torch.inf)
    got = decode_attention(q, scene.k_cache, scene.v_cache, scene.tables, mask)
    for row, length in enumerate(lengths):
        expected = written_out(q[row], scene.keys[row], scene.values[row], length - 1)
        torch.testing.assert_close(got[row], expected, **TOLERANCE)


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize(("context", "tokens"), [(0, 1), (0, 13), (4, 1), (5, 9), (12, 4)])
def test_prefill_of_a_chunk(group, context, tokens):
    scene = Scene([context + tokens], num_kv_heads=2)
    q = scene.random(tokens, 2 * group, HEAD_DIM)
    got = prefill_attention(q, scene.k_cache, scene.v_cache, scene.tables[0], context)
    for row in range(tokens):
        expected = written_out(q[row], scene.keys[0], scene.values[0], context + row)
        torch.testing.assert_close(got[row], expected, **TOLERANCE)


def test_a_write_touches_its_slots_only():
    cache = torch.zeros(5, BLOCK_SIZE, 3, HEAD_DIM)
    values = torch.randn(2, 3, HEAD_DIM)
    write_kv(cache, values, torch.tensor([2 * BLOCK_SIZE + 1, 4 * BLOCK_SIZE]))
    assert torch.equal(cache[2, 1], values[0]) and torch.equal(cache[4, 0], values[1])
    assert cache.count_nonzero() == values.count_nonzero()
