"""Paged prefill attention: chunks of several sequences, causally, with history. Kernel, launcher, torch reference.

Query tokens times the query heads of one KV head are the rows of one attention problem, cut into tiles of which each
program works through one; every group of heads fills the tiles without gaps. Keys that all rows of a tile see take no
mask; the diagonal (and the edge of a window) is a loop of its own. The sequence and tile of a program are counted out
on the device, so that short chunks launch no programs for the longest one's tiles; late tiles, which have most keys,
start first.
"""

import functools
import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from engine.kernels.kernel_config import KernelConfig, assert_aligned, power_of_two
from engine.kernels.paged_attention import prefill_attention
from engine.kernels.paged_shape import DEFAULT, INTERPRETER, AttentionOptions, PagedShape, gpu, typical_shapes
from engine.kernels.paged_tiles import attend_tiles, narrow_queries, nothing_attended
from engine.kernels.triton_language import jit, tl


class Chunks(NamedTuple):
    """Which query tokens belong to which sequence.

    tables: [sequences, blocks] int32, block ids, of which those beyond a sequence's end are not looked at; starts:
    [sequences + 1] int32, first query of each sequence and, last, the number of queries; contexts: [sequences] int32,
    tokens in the cache before each chunk; max_queries: of one sequence, or more.
    """

    tables: Tensor
    starts: Tensor
    contexts: Tensor
    max_queries: int


def paged_prefill(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, chunks: Chunks, options: AttentionOptions = DEFAULT
) -> Tensor:
    """Attention of chunks whose own keys and values are in the cache already; returns q's shape.

    q: [tokens, num_heads, head_dim]; k_cache, v_cache: [num_blocks, block_size, num_kv_heads, head_dim] of q's dtype or
    float8_e4m3fn. Queries beyond the last chunk (padding) give zeros from the reference and anything from the kernel.
    """
    if q.is_cuda:
        return launch(q, k_cache, v_cache, chunks, options)
    out = torch.zeros_like(q)
    scaled = q * (options.score_scale(q.shape[-1]) * math.sqrt(q.shape[-1]))
    bounds = chunks.starts.tolist()
    for row, (start, end) in enumerate(pairwise(bounds)):
        if start < end:
            table, context = chunks.tables[row], int(chunks.contexts[row])
            out[start:end] = prefill_attention(scaled[start:end], k_cache, v_cache, table, context, options.window)
    return out.mul_(options.v_scale)


def launch(q: Tensor, k_cache: Tensor, v_cache: Tensor, chunks: Chunks, options: AttentionOptions = DEFAULT) -> Tensor:
    """Run the kernel: `paged_prefill` on tensors of a GPU, or of a CPU under Triton's interpreter.

    All tensors but tables are contiguous.
    """
    tables, starts, contexts, max_queries = chunks
    assert all(tensor.is_contiguous() for tensor in (q, k_cache, v_cache, starts, contexts))
    assert tables.dtype == starts.dtype == contexts.dtype == torch.int32 and tables.stride(1) == 1
    assert options.k_scale > 0, "the maximum of the scores is taken before they are scaled"
    shape = PagedShape.of(q, k_cache, options.window)
    out = torch.empty_like(q)
    if not len(q) or not len(tables):
        return out
    cut = tile(shape, max_queries * shape.group, -(-len(q) * shape.num_heads // gpu(q.device).processors))
    plan = config(shape, power_of_two(max(len(tables), 32)), cut)
    tiles = -(-len(q) * shape.group // cut.rows) + len(tables)  # each sequence's last is not full
    k_cache, v_cache = shape.viewed(k_cache), shape.viewed(v_cache)
    assert_aligned(out, q, k_cache, v_cache)  # what is read a number at a time may be anywhere
    scale = options.score_scale(shape.head_dim) * math.log2(math.e)
    _kernel[(tiles * shape.kv_heads,)](
        out, q, k_cache, v_cache, tables, starts, contexts,
        scale, options.v_scale, len(tables), tables.stride(0), **plan.keywords,
    )  # fmt: skip
    return out


@jit(do_not_specialize=["num_seqs", "table_stride"])
def _kernel(
    out_ptr, q_ptr, k_ptr, v_ptr, tables_ptr, starts_ptr, contexts_ptr, scale, v_scale, num_seqs, table_stride,
    SEQS: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, TILE: tl.constexpr, IS_FP8: tl.constexpr,
    COMPUTE: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Grid: tiles of rows x KV heads, heads fastest, so that programs that run together share keys in the cache."""
    head = tl.program_id(0) % KV_HEADS
    sequence, row, num_rows, start = _tile_of(starts_ptr, num_seqs, tl.program_id(0) // KV_HEADS, SEQS, GROUP, ROWS)
    if sequence >= num_seqs:
        return
    context = tl.load(contexts_ptr + sequence)
    places, stored = _places(start, head, row, num_rows, KV_HEADS, GROUP, HEAD_DIM, ROWS, DIM)
    q, scales = narrow_queries(tl.load(q_ptr + places, mask=stored, other=0.0), scale, IS_FP8, COMPUTE)
    first = context + row // GROUP  # position of the tile's first query
    last = context + (tl.minimum(row + ROWS, num_rows) - 1) // GROUP
    total, summed = _attend_keys(
        q, k_ptr + head * HEAD_DIM, v_ptr + head * HEAD_DIM, tables_ptr + sequence.to(tl.int64) * table_stride,
        scales, tl.minimum(context + (row + tl.arange(0, ROWS)) // GROUP, last), first, last,
        KV_HEADS * HEAD_DIM, HEAD_DIM, BLOCK_SIZE, WINDOW, TILE, COMPUTE, PRECISION, INDEX,
    )  # fmt: skip
    # Counted out anew: kept from before, the places would take registers all the while.
    row += tl.load(starts_ptr + sequence, volatile=True) - start
    places, stored = _places(start, head, row, num_rows, KV_HEADS, GROUP, HEAD_DIM, ROWS, DIM)
    tl.store(out_ptr + places, (summed * (v_scale / total)[:, None]).to(out_ptr.dtype.element_ty), mask=stored)


@jit
def _places(
    start, head, row, num_rows,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Where the rows of a tile stand in q and out, and which of [ROWS, DIM] do; start: the sequence's first query."""
    rows, columns = row + tl.arange(0, ROWS), tl.arange(0, DIM)
    heads = (start + rows // GROUP) * (KV_HEADS * GROUP) + head * GROUP + rows % GROUP
    places = heads.to(tl.int64)[:, None] * HEAD_DIM + columns[None, :]
    return places, (rows < num_rows)[:, None] & (columns < HEAD_DIM)[None, :]


@jit
def _tile_of(starts_ptr, num_seqs, index, SEQS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr):
    """Which tile number `index` of the batch is: (sequence, its first row, rows and first query of the sequence).

    The sequence is num_seqs where there is no such tile. The tiles of a sequence come last first.
    """
    sequences = tl.arange(0, SEQS)
    real = sequences < num_seqs
    starts = tl.load(starts_ptr + sequences, mask=real, other=0)
    lengths = tl.load(starts_ptr + sequences + 1, mask=real, other=0) - starts
    ends = tl.cumsum((lengths * GROUP + ROWS - 1) // ROWS)
    sequence = tl.sum(((ends <= index) & real).to(tl.int32))
    chosen = sequences == sequence
    row = (tl.sum(tl.where(chosen, ends, 0)) - 1 - index) * ROWS
    return sequence, row, tl.sum(tl.where(chosen, lengths, 0)) * GROUP, tl.sum(tl.where(chosen, starts, 0))


@jit
def _attend_keys(
    q, k_ptr, v_ptr, table_ptr, scales, positions, first, last,
    STRIDE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, WINDOW: tl.constexpr, TILE: tl.constexpr,
    COMPUTE: tl.constexpr, PRECISION: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Online softmax over the keys that the rows see: (sum, weighted values)."""
    maximum, total, summed = nothing_attended(q)
    start = 0
    whole = (first + 1) // TILE  # tiles before this one end at the first query or earlier
    ends = last // TILE + 1
    if WINDOW > 0:
        start = tl.maximum(first + 1 - WINDOW, 0) // TILE
        inner = tl.minimum((tl.maximum(last + 1 - WINDOW, 0) + TILE - 1) // TILE, tl.maximum(whole, start))
        maximum, total, summed = attend_tiles(
            maximum, total, summed, q, k_ptr, v_ptr, table_ptr, scales, positions, start, inner, last,
            STRIDE, HEAD_DIM, BLOCK_SIZE, WINDOW, TILE, False, COMPUTE, PRECISION, INDEX,
        )  # fmt: skip
        start = inner
    maximum, total, summed = attend_tiles(
        maximum, total, summed, q, k_ptr, v_ptr, table_ptr, scales, positions, start, whole, last,
        STRIDE, HEAD_DIM, BLOCK_SIZE, WINDOW, TILE, True, COMPUTE, PRECISION, INDEX,
    )  # fmt: skip
    maximum, total, summed = attend_tiles(
        maximum, total, summed, q, k_ptr, v_ptr, table_ptr, scales, positions, tl.maximum(start, whole), ends, last,
        STRIDE, HEAD_DIM, BLOCK_SIZE, WINDOW, TILE, False, COMPUTE, PRECISION, INDEX,
    )  # fmt: skip
    return total, summed


class Tile(NamedTuple):
    """Query rows and keys that a program multiplies at a time, its warps, and the stages of its pipeline of loads."""

    rows: int
    keys: int
    warps: int
    stages: int


# The largest tiles that spill no register, of each family of architectures, by padded head dimension.
_HALF = {
    80: {64: Tile(128, 64, 8, 3), 128: Tile(128, 64, 8, 3), 256: Tile(64, 32, 8, 2)},
    90: {64: Tile(128, 128, 8, 3), 128: Tile(128, 128, 8, 2), 256: Tile(128, 64, 8, 2)},
    100: {64: Tile(128, 128, 8, 3), 128: Tile(128, 64, 8, 3), 256: Tile(128, 32, 8, 2)},
}
_FP8 = {
    80: {64: Tile(128, 64, 8, 3), 128: Tile(128, 32, 8, 3), 256: Tile(64, 32, 8, 2)},
    90: {64: Tile(128, 64, 8, 3), 128: Tile(128, 64, 8, 3), 256: Tile(128, 32, 8, 2)},
    100: {64: Tile(128, 64, 8, 3), 128: Tile(128, 64, 8, 3), 256: Tile(128, 32, 8, 2)},
}
_EXACT = {64: Tile(32, 32, 4, 2), 128: Tile(16, 32, 4, 2), 256: Tile(16, 16, 8, 2)}


def tile(shape: PagedShape, longest: int, share: int) -> Tile:
    """The tile for chunks of at most `longest` rows (query tokens x grouped heads), `share` rows a multiprocessor."""
    dim = max(shape.padded["DIM"], 64)
    if shape.is_exact or shape.architecture == INTERPRETER:
        return _EXACT[dim]
    family = {9: 90, 10: 100}.get(shape.architecture // 10, 80)
    largest = (_FP8 if shape.is_fp8 else _HALF)[family][dim]
    if longest <= 16:
        return Tile(16, 64 if dim <= 128 else 32, 4, 3)
    if min(longest, share) <= 64 and dim <= 128 and not shape.is_fp8:  # large tiles would be empty, or too few
        return Tile(64, 64, 4, 2)
    return largest


@functools.lru_cache(maxsize=4096)
def config(shape: PagedShape, num_seqs: int, tile: Tile) -> KernelConfig:
    """How chunks of up to `num_seqs` sequences, a power of two, are worked through in such tiles."""
    matrix = {90: "HGMMA", 100: "UTC.MMA"}.get(shape.architecture, "HMMA") if tile.rows >= 64 else "HMMA"
    return KernelConfig(
        name=f"paged_prefill {shape} {tile.rows} rows",
        kernel=_kernel,
        types=shape.types | {"starts_ptr": "*i32"},
        choices=shape.choices | {"SEQS": num_seqs, "ROWS": tile.rows, "TILE": tile.keys} | shape.padded,
        num_warps=tile.warps,
        num_stages=tile.stages,
        architectures=(shape.architecture,),
        machine_code=(matrix, r"LDGSTS\.E\.BYPASS\.128"),
    )


def configs() -> tuple[KernelConfig, ...]:
    """Configurations for the kinds of models that are supported; for one of them, of short chunks too."""
    shapes = tuple(typical_shapes())
    plans = [(shape, tile(shape, 1 << 16, 1 << 16)) for shape in shapes]
    plans += [(shape, tile(shape, longest, 1 << 16)) for shape in shapes[::6] for longest in (16, 64)]
    return tuple(config(shape, 32, cut) for shape, cut in plans)
