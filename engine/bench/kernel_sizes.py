"""A kernel benchmark's case, and the sizes at which a suite's cases are made: those that decide a model's speed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Inputs = dict[str, Any]
Do = Callable[[Inputs], Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """One operation at one size; `target` names the figure of targets.json that it answers, and of what kind.

    `outcome` is all that the operation should have done, from its inputs afterwards and what it returned: what
    `reference` gives in float32 for fresh inputs.
    """

    operation: str
    size: str
    dtype: torch.dtype
    memory_bytes: float
    flops: float
    make: Callable[[torch.device, torch.Generator], Inputs]
    ours: Do
    reference: Do
    rivals: Mapping[str, Do] = field(default_factory=dict)
    outcome: Callable[[Inputs, Tensor], Tensor] = lambda _, returned: returned
    target: tuple[str, str] | None = None  # (key, bytes_per_s | flop_per_s | seconds)


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of one layer's attention."""

    query: int = 32
    kv: int = 8
    dim: int = 128
    block_size: int = 16


@dataclass(frozen=True, slots=True)
class Suite:
    """The sizes of one run: attention at (sequences, context) and (tokens, history), the others at rows of a model."""

    dtype: torch.dtype
    heads: Heads
    decodes: tuple[tuple[int, int], ...]
    prefills: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    hidden: int
    intermediate: int
    vocabulary: int
    targets: Mapping[tuple[str, int, int], tuple[str, str]] = field(default_factory=dict)


H200 = Suite(
    dtype=torch.bfloat16,
    heads=Heads(),
    decodes=((256, 1024), (32, 1024), (1, 1024), (64, 1024), (128, 4096), (8, 16384), (1, 16384)),
    prefills=((8192, 0), (2048, 0), (512, 0), (2048, 8192), (512, 16384)),
    rows=(1, 256, 8192),
    hidden=4096,
    intermediate=14336,
    vocabulary=128256,
    targets={
        ("decode", 256, 1024): ("decode_attention_1gb", "bytes_per_s"),
        ("decode", 32, 1024): ("decode_attention_32x1k", "seconds"),
        ("decode", 1, 1024): ("decode_attention_1x1k", "seconds"),
        ("prefill", 8192, 0): ("prefill_attention_8k", "flop_per_s"),
    },
)
SMOKE = Suite(
    dtype=torch.float32,
    heads=Heads(query=9, kv=3, dim=64),
    decodes=((4, 128), (1, 128)),
    prefills=((64, 0), (64, 128)),
    rows=(8,),
    hidden=576,
    intermediate=1536,
    vocabulary=49152,
)
SUITES: Mapping[str, Suite] = {"h200": H200, "smoke": SMOKE}
