"""The paged KV cache: its memory, and how many blocks a budget holds.

Block 0 is the null block: padding points at it and no request owns it.
"""

import torch
from torch import Tensor

from roofline.errors import CapacityError
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


def blocks_within(budget_bytes: int, shape: ModelShape, block_size: int, dtype: torch.dtype) -> int:
    """Blocks that a memory budget holds, the null block among them.

    Raises `CapacityError` where that leaves no block for a request.
    """
    size = block_bytes(shape, block_size, dtype)
    if budget_bytes < 2 * size:
        raise CapacityError(
            f"a KV budget of {budget_bytes:,} bytes holds {budget_bytes // size} blocks of {block_size} tokens of "
            f"{shape.name} ({size:,} bytes each); at least 2 are needed. Raise the budget or lower block_size."
        )
    return budget_bytes // size
