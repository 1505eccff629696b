"""Rotary positions on queries and keys, and the write of keys and values into the paged cache.

Kernel, launcher, torch reference in one file, because on a device it is one pass over the projected q, k and v: each
value is read once and written once, where attention looks for it. The keys or values of one layer have the layout
[num_blocks, block_size, num_kv_heads, head_dim]: a block lies together, and so does all of a token.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from engine.kernels.kernel_config import (
    ARCHITECTURES,
    KernelConfig,
    assert_aligned,
    dtype_name,
    pointer,
    power_of_two,
    shipped_shapes,
)
from engine.kernels.rms_norm import rms_norm
from engine.kernels.triton_language import jit, tl
from roofline.errors import ModelError
from roofline.model_parts import RopeScaling
from roofline.model_shape import ModelShape

E4M3_MAX = 448.0
FP8_SINCE = 89  # the first architecture that converts to e4m3 by an instruction
THREADS = 128  # of a program, at most


class RopeTable(NamedTuple):
    """cos: [max_position, 1, head_dim], both halves alike; sin: the same, its first half negated."""

    cos: Tensor
    sin: Tensor


def rope_table(
    shape: ModelShape, dtype: torch.dtype, device: torch.device | str = "cpu", divisors: Tensor | None = None
) -> RopeTable:
    """The table of every position of a model; computed in float64, since position times frequency loses bits.

    divisors: [head_dim / 2] float64, of the frequencies, where the model's file has them. Raises `ModelError` for a
    kind of rope scaling that is not implemented.
    """
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    plain = shape.rope_theta**-exponents
    frequencies = _scaled(plain, shape.rope_scaling) if divisors is None else plain / divisors
    angles = torch.outer(torch.arange(shape.max_position, dtype=torch.float64), frequencies)
    cos, sin = angles.cos(), angles.sin()
    halves = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    return RopeTable(*(half.unsqueeze(1).to(device, dtype) for half in halves))


def _scaled(frequencies: Tensor, scaling: RopeScaling | None) -> Tensor:
    """Frequencies stretched as the model was trained: `linear` divides all, `llama3` only the slow ones."""
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    if scaling.kind != "llama3" or not (scaling.original_max_position and scaling.high_freq_factor):
        raise ModelError(f"rope scaling {scaling.kind!r} is not implemented; use a model with none, linear or llama3.")
    low, high = scaling.low_freq_factor or 1.0, scaling.high_freq_factor
    turns = scaling.original_max_position * frequencies / (2 * math.pi)  # full circles within the original context
    kept = ((turns - low) / (high - low)).clamp(0, 1)  # 1: fast, kept as it is; 0: slow, divided by the factor
    return frequencies * kept + frequencies / scaling.factor * (1 - kept)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x: [tokens, heads, head_dim] by cos, sin: [tokens, 1, head_dim] of each token's position."""
    swapped = torch.cat(x.chunk(2, dim=-1)[::-1], dim=-1)
    return (x * cos).addcmul_(swapped, sin)


def write_kv(cache: Tensor, values: Tensor, slots: Tensor) -> None:
    """Put values: [tokens, num_kv_heads, head_dim] into one layer's key or value cache, in place.

    slots: [tokens] = block id * block_size + place in the block.
    """
    cache.view(-1, *cache.shape[2:]).index_copy_(0, slots, values)


class PagedKV(NamedTuple):
    """One layer's cache. keys, values: [num_blocks, block_size, num_kv_heads, head_dim], contiguous.

    What the cache holds times k_scale and v_scale are the keys and values; other scales than 1 are for fp8 (e4m3).
    """

    keys: Tensor
    values: Tensor
    k_scale: float = 1.0
    v_scale: float = 1.0


class HeadNorm(NamedTuple):
    """The norm over each head's values before the rotation (Qwen3's). q, k: weights, [head_dim]."""

    q: Tensor
    k: Tensor
    eps: float


def rope_and_write(
    qkv: Tensor, table: RopeTable, positions: Tensor, slots: Tensor, cache: PagedKV, norm: HeadNorm | None = None
) -> Tensor:
    """Normalise and rotate queries and keys, write keys and values into the cache.

    qkv: [tokens, (heads + 2 * kv_heads) * head_dim], queries first, then keys, then values; positions: [tokens], rows
    of the table; slots: [tokens] as for `write_kv`, -1 for a token that is not to be written. Returns the queries,
    [tokens, heads, head_dim].
    """
    if qkv.is_cuda:
        return launch(qkv, table, positions, slots, cache, norm)
    kv_heads, head_dim = cache.keys.shape[2:]
    heads = qkv.shape[1] // head_dim - 2 * kv_heads
    projected = qkv.view(len(qkv), heads + 2 * kv_heads, head_dim)
    q, k, v = projected.split((heads, kv_heads, kv_heads), dim=1)
    if norm is not None:
        q, k = rms_norm(q, norm.q, norm.eps), rms_norm(k, norm.k, norm.eps)
    cos, sin = (part.index_select(0, positions.clamp(min=0)) for part in table)
    written = slots >= 0
    for values, part, scale in ((apply_rope(k, cos, sin), cache.keys, cache.k_scale), (v, cache.values, cache.v_scale)):
        kept = quantised(values, part.dtype, scale)[written]
        as_bytes = part.dtype == torch.float8_e4m3fn  # torch copies none of its float8 formats by index on a CPU
        pair = (part.view(torch.uint8), kept.view(torch.uint8)) if as_bytes else (part, kept)
        write_kv(*pair, slots[written].long())
    return apply_rope(q, cos, sin)


def quantised(values: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    """Values as a cache of this type holds them; e4m3 has no infinity, so what exceeds its range stays at its end."""
    if dtype != torch.float8_e4m3fn:
        return values.to(dtype)
    return (values.float() * (1 / scale)).clamp(-E4M3_MAX, E4M3_MAX).to(dtype)


def launch(
    qkv: Tensor, table: RopeTable, positions: Tensor, slots: Tensor, cache: PagedKV, norm: HeadNorm | None
) -> Tensor:
    """Run the kernel: see `rope_and_write`. qkv: contiguous; positions, slots: int32 or int64, alike."""
    _, _, kv_heads, head_dim = cache.keys.shape
    heads = qkv.shape[1] // head_dim - 2 * kv_heads
    q = qkv.new_empty(len(qkv), heads, head_dim)
    tensors = (qkv, *table, positions, slots, cache.keys, cache.values, *(norm[:2] if norm else ()), q)
    assert all(tensor.is_contiguous() for tensor in tensors) and positions.dtype == slots.dtype
    assert_aligned(qkv, *table, cache.keys, cache.values, q)
    if len(qkv):
        head_shape = HeadShape(heads, kv_heads, head_dim)
        plan = config(head_shape, qkv.dtype, cache.keys.dtype, norm is not None, positions.dtype)
        q_norm, k_norm, eps = norm or (None, None, 0.0)
        _kernel[len(qkv), -(-head_shape.total // plan.choices["TILE"])](
            qkv, table.cos, table.sin, positions, slots, cache.keys, cache.values, q, q_norm, k_norm, eps,
            1 / cache.k_scale, 1 / cache.v_scale, **plan.keywords,
        )  # fmt: skip
    return q


@jit
def _kernel(
    qkv_ptr, cos_ptr, sin_ptr, positions_ptr, slots_ptr, keys_ptr, values_ptr, q_ptr, q_norm_ptr, k_norm_ptr, eps,
    k_factor, v_factor, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr,
    TILE: tl.constexpr, IS_FP8: tl.constexpr,
):  # fmt: skip
    """One token, `TILE` of its heads: rows of queries, keys and values alike, as two halves [TILE, HALF]."""
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * TILE + tl.arange(0, TILE)
    columns = tl.arange(0, HALF)
    inside = (heads < HEADS + 2 * KV_HEADS)[:, None] & (columns < D // 2)[None, :]
    places = heads[:, None] * D + columns[None, :]
    source = qkv_ptr + token * ((HEADS + 2 * KV_HEADS) * D)
    low = tl.load(source + places, mask=inside, other=0.0)
    high = tl.load(source + places + D // 2, mask=inside, other=0.0)
    dtype = low.dtype
    is_query, is_value = (heads < HEADS)[:, None], (heads >= HEADS + KV_HEADS)[:, None]
    wide_low, wide_high = low.to(tl.float32), high.to(tl.float32)
    if q_norm_ptr is not None:
        wide_low, wide_high = _normed(wide_low, wide_high, q_norm_ptr, k_norm_ptr, is_query, eps, D, HALF, dtype)
    position = tl.maximum(tl.load(positions_ptr + token), 0).to(tl.int64)
    cos = tl.load(cos_ptr + position * D + columns, mask=columns < D // 2, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + position * D + D // 2 + columns, mask=columns < D // 2, other=0.0).to(tl.float32)[None, :]
    turned_low = tl.where(is_value, low, ((wide_low * cos).to(dtype).to(tl.float32) - wide_high * sin).to(dtype))
    turned_high = tl.where(is_value, high, ((wide_high * cos).to(dtype).to(tl.float32) + wide_low * sin).to(dtype))
    to_q = q_ptr + token * (HEADS * D) + places
    tl.store(to_q, turned_low, mask=inside & is_query)
    tl.store(to_q + D // 2, turned_high, mask=inside & is_query)
    slot = tl.load(slots_ptr + token).to(tl.int64)
    # A branch on the slot makes ptxas spill for sm_90; the interpreter takes no scalar for a mask.
    inside &= (tl.zeros((TILE,), tl.int64) + slot >= 0)[:, None]
    is_key = inside & (heads >= HEADS)[:, None] & (heads < HEADS + KV_HEADS)[:, None]
    keys = keys_ptr + slot * (KV_HEADS * D) + (places - HEADS * D)
    _write(keys, turned_low, is_key, k_factor, IS_FP8)
    _write(keys + D // 2, turned_high, is_key, k_factor, IS_FP8)
    values = values_ptr + slot * (KV_HEADS * D) + (places - (HEADS + KV_HEADS) * D)
    _write(values, turned_low, inside & is_value, v_factor, IS_FP8)
    _write(values + D // 2, turned_high, inside & is_value, v_factor, IS_FP8)


@jit
def _normed(low, high, q_norm_ptr, k_norm_ptr, is_query, eps, D: tl.constexpr, HALF: tl.constexpr, dtype: tl.constexpr):
    """Both halves of each head's `rms_norm`, float32 with the rounding of `dtype`."""
    columns = tl.arange(0, HALF)
    inside = (columns < D // 2)[None, :]
    scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / D + eps)[:, None]
    weights = tl.where(is_query, q_norm_ptr, k_norm_ptr) + columns[None, :]
    low_weight = tl.load(weights, mask=inside, other=0.0).to(tl.float32)
    high_weight = tl.load(weights + D // 2, mask=inside, other=0.0).to(tl.float32)
    low = ((low * scale).to(dtype).to(tl.float32) * low_weight).to(dtype)
    high = ((high * scale).to(dtype).to(tl.float32) * high_weight).to(dtype)
    return low.to(tl.float32), high.to(tl.float32)


@jit
def _write(pointers, values, mask, factor, IS_FP8: tl.constexpr):
    """Store into the cache; into fp8 within its range, since beyond it lies NaN."""
    if IS_FP8:
        wide = tl.clamp(values.to(tl.float32) * factor, -448.0, 448.0)
        tl.store(pointers, wide.to(pointers.dtype.element_ty), mask=mask)
    else:
        tl.store(pointers, values.to(pointers.dtype.element_ty), mask=mask)


class HeadShape(NamedTuple):
    """Heads of one token's projected row."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def total(self) -> int:
        """Queries, keys and values."""
        return self.heads + 2 * self.kv_heads


@functools.lru_cache(maxsize=4096)
def config(
    shape: HeadShape, dtype: torch.dtype, cache_dtype: torch.dtype, has_norm: bool, index_dtype: torch.dtype
) -> KernelConfig:
    """How many heads a program takes: 16 bytes of each half for each of its threads."""
    half = power_of_two(shape.head_dim // 2)
    tile = min(THREADS * 16 // (half * dtype.itemsize), power_of_two(shape.total))
    is_fp8 = cache_dtype == torch.float8_e4m3fn
    norms = {"q_norm_ptr", "k_norm_ptr"}
    types = dict.fromkeys(
        ("qkv_ptr", "cos_ptr", "sin_ptr", "q_ptr", *(sorted(norms) if has_norm else ())), pointer(dtype)
    )
    types |= dict.fromkeys(("keys_ptr", "values_ptr"), pointer(cache_dtype))
    types |= dict.fromkeys(("positions_ptr", "slots_ptr"), pointer(index_dtype))
    names = f"{dtype_name(dtype)}{' qk-norm' if has_norm else ''}{' fp8 cache' if is_fp8 else ''}"
    return KernelConfig(
        name=f"rope_and_write {names} {shape.heads}/{shape.kv_heads} d={shape.head_dim}",
        kernel=_kernel,
        types=types | dict.fromkeys(("eps", "k_factor", "v_factor"), "fp32"),
        absent=frozenset() if has_norm else frozenset(norms),
        choices={
            "HEADS": shape.heads, "KV_HEADS": shape.kv_heads, "D": shape.head_dim, "HALF": half, "TILE": tile,
            "IS_FP8": is_fp8,
        },
        num_warps=max(tile * half * dtype.itemsize // (16 * 32), 1),
        architectures=tuple(arch for arch in ARCHITECTURES if arch >= FP8_SINCE or not is_fp8),
        machine_code=(r"LDG\.E.*\.128", r"STG\.E.*\.128"),
    )  # fmt: skip


def configs() -> tuple[KernelConfig, ...]:
    """The configurations of the catalogue's models; other head dimensions, fp8 and float32 for one of them each."""
    bf16, fp8 = torch.bfloat16, torch.float8_e4m3fn
    models = {
        (HeadShape(shape.num_heads, shape.num_kv_heads, shape.head_dim), shape.qk_norm) for shape in shipped_shapes()
    }
    llama = HeadShape(32, 8, 128)
    return (
        *(config(shape, bf16, bf16, has_norm, torch.int32) for shape, has_norm in sorted(models)),
        *(config(HeadShape(32, 8, size), bf16, bf16, True, torch.int32) for size in (96, 256)),
        *(config(llama, bf16, fp8, has_norm, torch.int32) for has_norm in (False, True)),
        config(HeadShape(9, 3, 64), torch.float32, torch.float32, False, torch.int32),
    )
