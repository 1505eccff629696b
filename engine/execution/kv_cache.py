"""The paged KV cache: its memory, and how many blocks a budget holds.

Block 0 is the null block: padding points at it and no request owns it.
"""

import os
from pathlib import Path

import torch
from torch import Tensor

from roofline.errors import CapacityError, InputError
from roofline.model_shape import ModelShape


class KVCache:
    """keys[layer] and values[layer]: [num_blocks, block_size, num_kv_heads, head_dim], zero at first.

    Zeros matter: masked positions get probability 0, and 0 times the NaN of uninitialised memory is NaN.
    """

    def __init__(
        self,
        shape: ModelShape,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        size = (num_blocks, block_size, shape.num_kv_heads, shape.head_dim)
        self.keys: list[Tensor] = [torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.num_layers)]
        self.values: list[Tensor] = [torch.zeros(size, dtype=dtype, device=device) for _ in range(shape.num_layers)]


def block_bytes(shape: ModelShape, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block over all layers."""
    return 2 * shape.num_layers * shape.kv_size * block_size * dtype.itemsize


def check_memory(num_blocks: int, shape: ModelShape, block_size: int, dtype: torch.dtype) -> None:
    """Raise `CapacityError` for a pool beyond this machine's memory, whose pages would end the process one by one."""
    needed, memory = num_blocks * block_bytes(shape, block_size, dtype), machine_bytes()
    if needed > memory:
        raise CapacityError(
            f"{num_blocks:,} KV blocks of {block_size} tokens of {shape.name} take {needed / 1e9:.1f} GB and this "
            f"machine has {memory / 1e9:.1f} GB; lower num_blocks, or the batches and contexts that ask for them."
        )


def machine_bytes() -> int:
    """Memory of this machine, or of the control group that confines the process where that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return memory if text == "max" else min(memory, int(text))


def blocks_within(budget_bytes: int, shape: ModelShape, block_size: int, dtype: torch.dtype) -> int:
    """Blocks that a memory budget holds, the null block among them.

    Raises `CapacityError` where that leaves no block for a request, `InputError` for a block of no tokens.
    """
    if block_size < 1:
        raise InputError(f"block_size is {block_size}; it must be at least 1.")
    size = block_bytes(shape, block_size, dtype)
    if budget_bytes < 2 * size:
        raise CapacityError(
            f"a KV budget of {budget_bytes:,} bytes holds {budget_bytes // size} blocks of {block_size} tokens of "
            f"{shape.name} ({size:,} bytes each); at least 2 are needed. Raise the budget or lower block_size."
        )
    return budget_bytes // size
