"""Rotary positions on queries and keys, and the write of keys and values into the paged cache, torch reference.

One file, because on a device it is one pass over the projected q, k and v. The keys or values of one layer have the
layout [num_blocks, block_size, num_kv_heads, head_dim]: a block lies together, and so does all of a token.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from roofline.errors import ModelError
from roofline.model_parts import RopeScaling
from roofline.model_shape import ModelShape


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
