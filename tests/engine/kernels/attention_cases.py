"""One set-up for both paged attention kernels, under the interpreter and on a GPU."""

from typing import NamedTuple

import torch

from engine.kernels import paged_decode, paged_prefill
from engine.kernels.paged_prefill import Chunks
from engine.kernels.paged_shape import FP8, AttentionOptions

# Weights and results are each rounded once to the queries' format (2**-12, 2**-9); results of order 1 cancel from
# values of order 1. float32 products on tensor cores keep 2**-20.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-9, torch.bfloat16: 2**-7}


class AttentionCase(NamedTuple):
    """chunks: (tokens cached before, query tokens) of each sequence; decode has one query token or an empty row."""

    chunks: tuple[tuple[int, int], ...]
    kv_heads: int = 2
    group: int = 3
    head_dim: int = 64
    block_size: int = 16
    dtype: torch.dtype = torch.float32
    is_fp8: bool = False
    window: int = 0
    slots: int | None = None
    scale: float | None = None

    @property
    def options(self):
        k_scale, v_scale = (0.25, 2.0) if self.is_fp8 else (1.0, 1.0)
        return AttentionOptions(self.scale, self.window, k_scale, v_scale, self.slots)


def decode_case(contexts, **settings):
    """One query token after each of these contexts, its own key among them; nothing where a context is 0."""
    return AttentionCase(tuple((context - 1, 1) if context else (0, 0) for context in contexts), **settings)


class Inputs(NamedTuple):
    """q: [tokens, heads, d]; a row of decode without context has a query too; caches and tables as the kernels take."""

    q: torch.Tensor
    k_cache: torch.Tensor
    v_cache: torch.Tensor
    tables: torch.Tensor
    starts: torch.Tensor
    contexts: torch.Tensor  # before the chunks
    ends: torch.Tensor  # after them

    @property
    def chunks(self):
        return Chunks(self.tables, self.starts, self.contexts, max_queries=int(self.starts.diff().max()))

    def with_zeros(self):
        """The caches as an engine's are where nothing was written."""
        k, v = (cache.float().nan_to_num().to(cache.dtype) for cache in (self.k_cache, self.v_cache))
        return self._replace(k_cache=k, v_cache=v)


def inputs(case, device="cpu", seed=0):
    """Random values at scattered blocks; where no token was written there is NaN, and unused table entries name it."""
    generator = torch.Generator(device).manual_seed(seed)

    def random(*size):
        return torch.randn(size, generator=generator, device=device)

    size, kv_heads, dim = case.block_size, case.kv_heads, case.head_dim
    ends = [context + queries for context, queries in case.chunks]
    needed = [-(-end // size) for end in ends]
    order = (torch.randperm(sum(needed), generator=torch.Generator().manual_seed(seed)) + 1).tolist()  # 0 is all NaN
    tables = torch.zeros(len(ends), max(needed) + 2, dtype=torch.int32)
    caches = [torch.full((sum(needed) + 1, size, kv_heads, dim), torch.nan, device=device) for _ in "kv"]
    for row, (end, count) in enumerate(zip(ends, needed, strict=True)):
        owned = [order.pop() for _ in range(count)]
        tables[row, :count] = torch.tensor(owned)
        for cache in caches:
            rows = torch.full((count * size, kv_heads, dim), torch.nan, device=device)
            rows[:end] = random(end, kv_heads, dim)
            cache[owned] = rows.view(count, size, kv_heads, dim)
    contexts, queries = (torch.tensor(column, dtype=torch.int32) for column in zip(*case.chunks, strict=True))
    starts = torch.cat((torch.zeros(1, dtype=torch.int32), queries.cumsum(0).int()))
    kind = FP8 if case.is_fp8 else case.dtype
    return Inputs(
        random(max(int(queries.sum()), len(ends)), kv_heads * case.group, dim).to(case.dtype),
        *(cache.to(kind) for cache in caches),
        *(part.to(device) for part in (tables, starts, contexts, (contexts + queries).int())),
    )


def written_out(case, given):
    """Attention without pages, chunks or online sums, in float64: [query tokens, heads, d]."""
    out = []
    for row, (context, queries) in enumerate(case.chunks):
        end, options = context + queries, case.options
        blocks = given.tables[row, : -(-end // case.block_size)].long()
        as_bytes = (cache.view(torch.uint8) if case.is_fp8 else cache for cache in (given.k_cache, given.v_cache))
        k, v = (part[blocks].view(given.k_cache.dtype).flatten(0, 1)[:end].double() for part in as_bytes)
        start = int(given.starts[row])
        q = given.q[start : start + queries].double().unflatten(1, (case.kv_heads, case.group))
        scale = (case.head_dim**-0.5 if case.scale is None else case.scale) * options.k_scale
        scores = torch.einsum("tkgd,nkd->kgtn", q, k) * scale
        at, keys = torch.arange(context, end, device=q.device)[:, None], torch.arange(end, device=q.device)
        seen = (keys <= at) & (keys > at - case.window if case.window else True)
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        out.append(torch.einsum("kgtn,nkd->tkgd", weights, v).flatten(1, 2) * options.v_scale)
    return torch.cat(out)


def assert_near(got, expected, dtype):
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def decode_inputs(case, device="cpu", seed=0):
    """Inputs whose row i of q belongs to sequence i, also where a row without context stands between."""
    given = inputs(case, device, seed)
    return given._replace(starts=torch.arange(len(case.chunks) + 1, dtype=torch.int32, device=device))


def decoded(case, given):
    """The decode kernel's result, wherever the inputs are."""
    return paged_decode.launch(given.q, given.k_cache, given.v_cache, given.tables, given.ends, case.options)


def prefilled(case, given):
    """The prefill kernel's result, wherever the inputs are."""
    return paged_prefill.launch(given.q, given.k_cache, given.v_cache, given.chunks, case.options)


def check_decode(device, case):
    """As attention written out; rows without context are zero."""
    given = decode_inputs(case, device)
    got = decoded(case, given)
    has_context = given.ends > 0
    assert_near(got[has_context], written_out(case, given), case.dtype)
    assert not got[~has_context].any()


def check_prefill(device, case):
    """As attention written out."""
    given = inputs(case, device)
    assert_near(prefilled(case, given), written_out(case, given), case.dtype)
