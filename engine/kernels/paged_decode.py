"""Paged decode attention: one query token a sequence against its cached context. Kernel, launcher, torch reference.

Decode reads every cached key and value once and computes next to nothing, so all that counts is that the whole device
loads all the time. The contexts of a batch are cut into chunks of about equal length, as many as fill the device; one
program attends one chunk for one KV head, with all query heads of that head as the rows of its matrix products. Where a
sequence has several chunks, the program that finishes last merges their results by log-sum-exp. Chunks are counted out
on the device from the contexts, within a launch grid that depends on the batch size alone: a captured graph stays valid
for any contexts.
"""

import functools
import math

import torch
from torch import Tensor

from engine.kernels.kernel_config import KernelConfig, assert_aligned, power_of_two
from engine.kernels.paged_attention import decode_attention
from engine.kernels.paged_shape import DEFAULT, AttentionOptions, PagedShape, gpu, typical_shapes
from engine.kernels.paged_tiles import attend_tiles, narrow_queries, nothing_attended
from engine.kernels.triton_language import jit, tl


def paged_decode(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, tables: Tensor, contexts: Tensor, options: AttentionOptions = DEFAULT
) -> Tensor:
    """Attention of one query token a sequence, whose own key and value are in the cache already; returns q's shape.

    q: [sequences, num_heads, head_dim]; k_cache, v_cache: [num_blocks, block_size, num_kv_heads, head_dim] of q's dtype
    or float8_e4m3fn; tables: [sequences, blocks] int32, block ids, of which those beyond a context are not looked at;
    contexts: [sequences] int32, cached tokens with the query's own. A row of context 0 (padding of a captured batch)
    gives zeros.
    """
    if q.is_cuda:
        return launch(q, k_cache, v_cache, tables, contexts, options)
    places = torch.arange(tables.shape[1] * k_cache.shape[1])
    seen = places < contexts[:, None]
    if options.window:
        seen &= places >= contexts[:, None] - options.window
    mask = torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, -torch.inf)
    scaled = q * (options.score_scale(q.shape[-1]) * math.sqrt(q.shape[-1]))
    out = decode_attention(scaled, k_cache, v_cache, tables, mask[:, None, None])
    return out.mul_(options.v_scale).masked_fill_((contexts == 0)[:, None, None], 0)


def launch(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, tables: Tensor, contexts: Tensor, options: AttentionOptions = DEFAULT
) -> Tensor:
    """Run the kernel: `paged_decode` on tensors of a GPU, or of a CPU under Triton's interpreter.

    All tensors but tables are contiguous. Under graph capture the results of a call live in the graph's memory pool.
    """
    assert q.is_contiguous() and k_cache.is_contiguous() and v_cache.is_contiguous() and contexts.is_contiguous()
    assert tables.dtype == contexts.dtype == torch.int32 and tables.stride(1) == 1 and len(tables) == len(q)
    assert options.k_scale > 0, "the maximum of the scores is taken before they are scaled"
    shape = PagedShape.of(q, k_cache, options.window)
    target = -(-(options.slots or programs(gpu(q.device).processors)) // shape.kv_heads)
    out = torch.empty_like(q)
    if not len(q):
        return out
    plan = config(shape, power_of_two(max(len(q), 32)))
    grid = (len(q) + target) * shape.kv_heads  # chunks of a context are at most one more than its share of `target`
    partial = q.new_empty((grid, shape.group, shape.head_dim), dtype=torch.float32)
    lse = q.new_empty((grid, shape.group), dtype=torch.float32)
    counters = _counters(q.device, power_of_two(max(len(q) * shape.kv_heads, 1 << 16)))
    k_cache, v_cache = shape.viewed(k_cache), shape.viewed(v_cache)
    assert_aligned(out, partial, lse, q, k_cache, v_cache)  # what is read a number at a time may be anywhere
    scale = options.score_scale(shape.head_dim) * math.log2(math.e)
    _kernel[(grid,)](
        out, partial, lse, counters, q, k_cache, v_cache, tables, contexts,
        scale, options.v_scale, len(q), target, tables.stride(0), **plan.keywords,
    )  # fmt: skip
    return out


@functools.cache
def _counters(device: torch.device, size: int) -> Tensor:
    """How many chunks of each sequence and KV head are done: 0 between launches, which each leave it so.

    One for a device, kept for good, since captured graphs point to it: launches on two streams must not overlap.
    """
    return torch.zeros(size, dtype=torch.int32, device=device)


@jit(do_not_specialize=["num_seqs", "target", "table_stride"])
def _kernel(
    out_ptr, partial_ptr, lse_ptr, counters_ptr, q_ptr, k_ptr, v_ptr, tables_ptr, contexts_ptr,
    scale, v_scale, num_seqs, target, table_stride,
    SEQS: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr, ROWS: tl.constexpr, MEMBERS: tl.constexpr, DIM: tl.constexpr, TILE: tl.constexpr,
    MERGE: tl.constexpr, MOST: tl.constexpr, IS_FP8: tl.constexpr, COMPUTE: tl.constexpr, PRECISION: tl.constexpr,
    INDEX: tl.constexpr,
):  # fmt: skip
    """Grid: chunks x KV heads, heads fastest, so that programs that run together read neighbouring memory."""
    unit, head = tl.program_id(0) // KV_HEADS, tl.program_id(0) % KV_HEADS
    sequence, context, first, count = _chunk(contexts_ptr, num_seqs, target, unit, SEQS, TILE, WINDOW, MOST)
    if sequence >= num_seqs:
        return
    rows, columns = tl.arange(0, ROWS), tl.arange(0, DIM)
    stored = (rows < GROUP)[:, None] & (columns < HEAD_DIM)[None, :]
    places = rows[:, None] * HEAD_DIM + columns[None, :]
    group_start = (sequence * KV_HEADS + head) * (GROUP * HEAD_DIM)
    q, scales = narrow_queries(tl.load(q_ptr + group_start + places, mask=stored, other=0.0), scale, IS_FP8, COMPUTE)
    tiles, end = _tiles(context, TILE, WINDOW), (context + TILE - 1) // TILE
    length = (tiles + count - 1) // count
    start = end - tiles + (unit - first) * length
    end = tl.minimum(start + length, end)
    last = tl.maximum(context - 1, 0)
    maximum, total, summed = nothing_attended(q)
    maximum, total, summed = attend_tiles(
        maximum, total, summed, q, k_ptr + head * HEAD_DIM, v_ptr + head * HEAD_DIM,
        tables_ptr + sequence.to(tl.int64) * table_stride, scales, tl.full([1], last, tl.int32), start, end, last,
        KV_HEADS * HEAD_DIM, HEAD_DIM, BLOCK_SIZE, WINDOW, TILE, False, COMPUTE, PRECISION, INDEX,
    )  # fmt: skip
    sure = tl.where(total > 0, total, 1.0)
    result = summed / sure[:, None]
    if count == 1:
        tl.store(out_ptr + group_start + places, (result * v_scale).to(out_ptr.dtype.element_ty), mask=stored)
        return
    item = (unit * KV_HEADS + head) * GROUP
    tl.store(lse_ptr + item + rows, maximum + tl.log2(sure), mask=rows < GROUP)
    tl.store(partial_ptr + item * HEAD_DIM + places, result, mask=stored)
    counter = counters_ptr + sequence * KV_HEADS + head
    tl.debug_barrier()  # all threads have stored before one of them says so
    if tl.atomic_add(counter, 1, sem="acq_rel") == count - 1:
        _merge(
            out_ptr + group_start, partial_ptr, lse_ptr, first * KV_HEADS + head, count, v_scale,
            KV_HEADS, GROUP, MEMBERS, HEAD_DIM, DIM, MERGE,
        )  # fmt: skip
        tl.store(counter, 0)


@jit
def _chunk(
    contexts_ptr, num_seqs, target, unit,
    SEQS: tl.constexpr, TILE: tl.constexpr, WINDOW: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """What chunk `unit` of the batch is: (sequence, its context, its first chunk, its number of chunks).

    Chunks are as many as `target` at equal lengths, and at most one more for each sequence; MOST of one sequence, since
    one program merges them. A sequence without context has an empty one, and so a result. Where there is no such chunk
    the sequence is num_seqs.
    """
    rows = tl.arange(0, SEQS)
    real = rows < num_seqs
    contexts = tl.load(contexts_ptr + rows, mask=real, other=0)
    tiles = _tiles(contexts, TILE, WINDOW)
    length = tl.maximum((tl.sum(tiles) + target - 1) // target, 1)
    counts = tl.minimum(tl.maximum((tiles + length - 1) // length, 1), MOST)
    ends = tl.cumsum(tl.where(real, counts, 0))
    before = (ends <= unit) & real
    sequence = tl.sum(before.to(tl.int32))
    first = tl.max(tl.where(before, ends, 0))
    chosen = rows == sequence
    return sequence, tl.sum(tl.where(chosen, contexts, 0)), first, tl.sum(tl.where(chosen, counts, 0))


@jit
def _tiles(context, TILE: tl.constexpr, WINDOW: tl.constexpr):
    """How many tiles hold the keys that the query of a context sees."""
    tiles = (context + TILE - 1) // TILE
    if WINDOW > 0:
        tiles -= tl.maximum(context - WINDOW, 0) // TILE
    return tiles


@jit
def _merge(
    out_ptr, partial_ptr, lse_ptr, first, count, v_scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, MEMBERS: tl.constexpr, HEAD_DIM: tl.constexpr, DIM: tl.constexpr,
    MERGE: tl.constexpr,
):  # fmt: skip
    """Write the result of one sequence and KV head from those of its chunks, `first` the first; MERGE at a time.

    Loads go past the first-level cache, which may hold what stood there before.
    """
    chunks, members, columns = tl.arange(0, MERGE), tl.arange(0, MEMBERS), tl.arange(0, DIM)
    inside = (members < GROUP)[:, None] & (columns < HEAD_DIM)[None, :]
    maximum = tl.full([MERGE, MEMBERS], -1e30, tl.float32)
    total = tl.zeros([MERGE, MEMBERS], tl.float32)
    summed = tl.zeros([MERGE, MEMBERS, DIM], tl.float32)
    for start in tl.range(0, count, MERGE):
        live = (start + chunks < count)[:, None] & (members < GROUP)[None, :]
        rows = (first + (start + chunks) * KV_HEADS)[:, None] * GROUP + members[None, :]
        lse = tl.load(lse_ptr + rows, mask=live, other=float("-inf"), cache_modifier=".cg")
        pointers = partial_ptr + rows[:, :, None] * HEAD_DIM + columns[None, None, :]
        part = tl.load(pointers, mask=live[:, :, None] & inside[None, :, :], other=0.0, cache_modifier=".cg")
        grown = tl.maximum(maximum, lse)
        shrink, weight = tl.exp2(maximum - grown), tl.exp2(lse - grown)
        total = total * shrink + weight
        summed = summed * shrink[:, :, None] + part * weight[:, :, None]
        maximum = grown
    share = tl.exp2(maximum - tl.max(maximum, 0)[None, :])
    total = tl.sum(total * share, 0)
    result = tl.sum(summed * share[:, :, None], 0) / tl.where(total > 0, total, 1.0)[:, None]
    places = members[:, None] * HEAD_DIM + columns[None, :]
    tl.store(out_ptr + places, (result * v_scale).to(out_ptr.dtype.element_ty), mask=inside)


def programs(processors: int) -> int:
    """Programs that a batch is cut for: two a multiprocessor, of which each has up to 64 KB of loads under way.

    That keeps memory busy: at 4.8 TB/s and a latency of 1 us, each of 132 multiprocessors needs 36 KB under way. A
    third program fits beside the two, for the chunks by which sequences do not come out even.
    """
    return 2 * processors


@functools.lru_cache(maxsize=4096)
def config(shape: PagedShape, num_seqs: int) -> KernelConfig:
    """How a batch of up to `num_seqs`, a power of two, is decoded."""
    dim = shape.padded["DIM"]
    members = power_of_two(shape.group)
    row_bytes = dim * (shape.dtype if shape.is_exact else shape.cache_dtype).itemsize
    tile_bytes = 16384 if shape.cache_dtype.itemsize == 2 else 8192  # more would spill where keys change their format
    return KernelConfig(
        name=f"paged_decode {shape}",
        kernel=_kernel,
        types=shape.types
        | dict.fromkeys(("partial_ptr", "lse_ptr"), "*fp32")
        | dict.fromkeys(("counters_ptr",), "*i32")
        | {"target": "i32"},
        choices=shape.choices
        | shape.padded
        | {"SEQS": num_seqs, "ROWS": max(members, 16), "MEMBERS": members}
        | {"TILE": max(tile_bytes // row_bytes, 16)}
        | {"MERGE": max(4096 // (members * dim), 1), "MOST": 64},
        num_warps=4,
        num_stages=4 if shape.is_fp8 else 3,
        architectures=(shape.architecture,),
        machine_code=(r"LDGSTS\.E\.BYPASS\.128",),
    )


def configs() -> tuple[KernelConfig, ...]:
    """Configurations for the kinds of models that are supported."""
    return tuple(config(shape, 256) for shape in typical_shapes())
