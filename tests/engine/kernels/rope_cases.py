"""One set-up for rotation and cache write, under the interpreter and on a GPU."""

from dataclasses import replace
from typing import NamedTuple

import torch

from engine.kernels.rope import HeadNorm, PagedKV, launch, rope_and_write, rope_table
from tests.engine.models import TINY

BLOCK_SIZE, MAX_POSITION = 4, 300
# float32: sums in another order, products fused. Shorter formats: one place, where that moves a rounding; after the
# head norm two, since its own rounding may move as well.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2**-9, torch.bfloat16: 2**-6}


class RopeCase(NamedTuple):
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype = torch.float32
    cache_dtype: torch.dtype | None = None
    has_norm: bool = False
    index_dtype: torch.dtype = torch.int32


class Inputs(NamedTuple):
    """The arguments of `launch`; the cache holds random values before the write."""

    qkv: torch.Tensor
    table: tuple
    positions: torch.Tensor
    slots: torch.Tensor
    cache: PagedKV
    norm: HeadNorm | None


def inputs(case):
    """Tokens at scattered places, every third without a slot."""
    generator = torch.Generator().manual_seed(case.tokens + case.head_dim)

    def random(*size, dtype=case.dtype):
        return torch.randn(size, generator=generator).to(dtype)

    table = rope_table(replace(TINY, head_dim=case.head_dim, max_position=MAX_POSITION), case.dtype)
    num_blocks = case.tokens // BLOCK_SIZE + 3
    size = (num_blocks, BLOCK_SIZE, case.kv_heads, case.head_dim)
    slots = torch.randperm(num_blocks * BLOCK_SIZE, generator=generator)[: case.tokens]
    slots[1::3] = -1
    kind = case.cache_dtype or case.dtype
    scales = (0.02, 0.5) if kind == torch.float8_e4m3fn else (1.0, 1.0)  # the first puts values beyond e4m3's range
    norm = HeadNorm(random(case.head_dim), random(case.head_dim), 1e-6) if case.has_norm else None
    return Inputs(
        qkv=random(case.tokens, (case.heads + 2 * case.kv_heads) * case.head_dim) * 5,
        table=table,
        positions=torch.randint(MAX_POSITION, (case.tokens,), generator=generator).to(case.index_dtype),
        slots=slots.to(case.index_dtype),
        cache=PagedKV(random(*size, dtype=kind), random(*size, dtype=kind), *scales),
        norm=norm,
    )


def moved(value, device):
    """Nested tuples of tensors, copied to a device."""
    if isinstance(value, torch.Tensor):
        return value.clone().to(device)
    if isinstance(value, tuple):
        parts = (moved(part, device) for part in value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def check_rope(device, case):
    """Queries, keys and values as in the reference; what no slot names stays as it was, bit for bit."""
    given = inputs(case)
    there, here = moved(given, device), moved(given, "cpu")
    got, expected = launch(*there), rope_and_write(*here)
    assert got.dtype == case.dtype and got.shape == (case.tokens, case.heads, case.head_dim)
    tolerance = {"rtol": TOLERANCE[case.dtype], "atol": 4 * TOLERANCE[case.dtype]}  # rotation cancels
    torch.testing.assert_close(got.cpu(), expected, **tolerance)
    is_fp8 = here.cache.keys.dtype == torch.float8_e4m3fn
    wider = {"rtol": 2**-3, "atol": 2**-9} if is_fp8 else tolerance  # one place of e4m3's three bits
    written = torch.zeros(len(here.cache.keys) * BLOCK_SIZE, dtype=torch.bool)
    written[given.slots[given.slots >= 0].long()] = True
    for part in ("keys", "values"):
        now, then, before = (
            getattr(cache, part).float().cpu().flatten(0, 1) for cache in (there.cache, here.cache, given.cache)
        )
        torch.testing.assert_close(now[written], then[written], **wider)
        assert torch.equal(now[~written], before[~written])
    values_now, values_then = there.cache.values.float().cpu(), here.cache.values.float()
    assert torch.equal(values_now, values_then), "values are copied, or scaled and rounded once"
