"""How many KV blocks a GPU has room for: what is left after the weights, the largest step and the captured graphs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from engine.execution.kv_cache import block_bytes
from roofline.errors import CapacityError, InputError
from roofline.model_shape import ModelShape

# Beside its memory pool, which all graphs share, a captured graph of some hundred kernels takes about this much.
GRAPH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of a device: in all, in use by anything after the weights were loaded, and what steps take on top.

    step: of the largest step while it runs; graphs: of all captured graphs.
    """

    total: int
    used: int
    step: int
    graphs: int = 0

    def for_kv(self, utilization: float) -> int:
        """Bytes left for the KV cache where `utilization` of the device may be used; negative if there are none."""
        return int(self.total * utilization) - self.used - self.step - self.graphs


def check_utilization(utilization: float) -> None:
    """Raise `InputError` for what is no fraction of a device."""
    if not 0 < utilization <= 1:
        raise InputError(f"gpu_memory_utilization is {utilization}; it must be above 0 and at most 1.")


@dataclass(frozen=True, slots=True)
class BlockKind:
    """What a KV block holds: `size` tokens of a model, in a number format."""

    shape: ModelShape
    size: int
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Of one block over all layers."""
        return block_bytes(self.shape, self.size, self.dtype)


def pool_blocks(memory: DeviceMemory, utilization: float, block: BlockKind) -> int:
    """KV blocks, the null block among them, that fill what is left; `CapacityError` where that serves no request."""
    left = memory.for_kv(utilization)
    if left < 2 * block.num_bytes:
        raise CapacityError(
            f"{block.shape.name} leaves no room for its KV cache: of the GPU's {_gb(memory.total)}, "
            f"gpu_memory_utilization {utilization:g} allows {_gb(memory.total * utilization)}, {_gb(memory.used)} are "
            f"in use with the weights loaded, and a step takes {_gb(memory.step + memory.graphs)} more; raise "
            "gpu_memory_utilization, lower max_num_batched_tokens or max_num_seqs, free the GPU of other programs, or "
            "use a smaller model or dtype."
        )
    return left // block.num_bytes


def check_pool(num_blocks: int, block: BlockKind, free_bytes: int) -> None:
    """Raise `CapacityError` for a pool of a wanted size that the device has no room for."""
    needed = num_blocks * block.num_bytes
    if needed > free_bytes:
        raise CapacityError(
            f"{num_blocks:,} KV blocks of {block.size} tokens of {block.shape.name} take {_gb(needed)} and the GPU has "
            f"{_gb(free_bytes)} free; lower num_blocks, or leave it out to fill what is free."
        )


@contextmanager
def out_of_memory_means(what: str, remedy: str) -> Iterator[None]:
    """Turn a device's out-of-memory error into a `CapacityError` that says what did not fit and what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CapacityError(f"the GPU's memory does not hold {what}; {remedy}.") from error


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2f} GB"
