"""What decides how paged attention is compiled and cut for a device: the call's options, its shapes, the GPU."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.kernels.kernel_config import ARCHITECTURES, dtype_name, pointer, power_of_two
from engine.kernels.triton_language import tl

FP8 = torch.float8_e4m3fn
FP8_ARCHITECTURE = 89  # the first that converts e4m3 by an instruction
INTERPRETER = 0  # the architecture of a CPU, where nothing but Triton's interpreter runs kernels


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """What stays the same from step to step.

    scale: of the products of queries and keys, None for 1 / sqrt(head_dim). window: newest keys that a query sees, its
    own among them; 0 for all. k_scale, v_scale: what a cache holds times these are the keys and values; for fp8 caches.
    slots: programs a decode is cut for, None for what the device runs at once.
    """

    scale: float | None = None
    window: int = 0
    k_scale: float = 1.0
    v_scale: float = 1.0
    slots: int | None = None

    def score_scale(self, head_dim: int) -> float:
        """Factor of the products of queries and cached keys."""
        return (1 / math.sqrt(head_dim) if self.scale is None else self.scale) * self.k_scale


DEFAULT = AttentionOptions()


@dataclass(frozen=True, slots=True)
class Gpu:
    """architecture: compute capability, 90 for 9.0; processors: streaming multiprocessors."""

    architecture: int
    processors: int


@functools.cache
def gpu(device: torch.device) -> Gpu:
    """The GPU that a tensor is on; for a CPU a small one, so that tests cut their few tokens into several chunks."""
    if device.type == "cpu":
        return Gpu(INTERPRETER, 2)
    found = torch.cuda.get_device_properties(device)
    return Gpu(found.major * 10 + found.minor, found.multi_processor_count)


@dataclass(frozen=True, slots=True)
class PagedShape:
    """What the machine code of both attention kernels depends on, tiles aside."""

    architecture: int
    dtype: torch.dtype
    cache_dtype: torch.dtype
    kv_heads: int
    group: int
    head_dim: int
    block_size: int
    window: int = 0
    is_large: bool = False  # whether offsets into the cache go beyond 31 bits

    @classmethod
    def of(cls, q: Tensor, k_cache: Tensor, window: int) -> "PagedShape":
        """The shape of a call; q: [tokens, num_heads, head_dim], k_cache: [blocks, block_size, kv_heads, head_dim]."""
        _, block_size, kv_heads, head_dim = k_cache.shape
        group, rest = divmod(q.shape[1], kv_heads)
        assert rest == 0 and q.shape[2] == head_dim and k_cache.dtype in (q.dtype, FP8)
        return cls(
            architecture=gpu(q.device).architecture,
            dtype=q.dtype,
            cache_dtype=k_cache.dtype,
            kv_heads=kv_heads,
            group=group,
            head_dim=head_dim,
            block_size=block_size,
            window=window,
            is_large=k_cache.numel() >= 1 << 31,
        )

    def __str__(self) -> str:
        heads = f"{self.num_heads}/{self.kv_heads} heads d={self.head_dim} block={self.block_size}"
        cache = "" if self.cache_dtype == self.dtype else f" kv={dtype_name(self.cache_dtype)}"
        window = f" window={self.window}" if self.window else ""
        return f"sm_{self.architecture} {dtype_name(self.dtype)}{cache} {heads}{window}"

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.kv_heads * self.group

    @property
    def is_fp8(self) -> bool:
        """Whether the cache holds e4m3."""
        return self.cache_dtype == FP8

    @property
    def is_exact(self) -> bool:
        """Whether queries are float32: the products are then, to all but the last bits, too."""
        return self.dtype == torch.float32

    def viewed(self, cache: Tensor) -> Tensor:
        """The cache as the kernel takes it: e4m3 as bytes where the device has no such type."""
        return cache.view(torch.uint8) if self.is_fp8 and self.architecture < FP8_ARCHITECTURE else cache

    @property
    def types(self) -> dict[str, str]:
        """Triton's types of the arguments that both kernels have."""
        as_bytes = self.is_fp8 and self.architecture < FP8_ARCHITECTURE
        cache = "*u8" if as_bytes else pointer(self.cache_dtype)
        tensors = {"out_ptr": pointer(self.dtype), "q_ptr": pointer(self.dtype), "k_ptr": cache, "v_ptr": cache}
        numbers = {"scale": "fp32", "v_scale": "fp32", "num_seqs": "i32", "table_stride": "i32"}
        return tensors | {"tables_ptr": "*i32", "contexts_ptr": "*i32"} | numbers

    @property
    def choices(self) -> dict[str, Any]:
        """The compile-time arguments that both kernels have."""
        return {
            "KV_HEADS": self.kv_heads,
            "GROUP": self.group,
            "HEAD_DIM": self.head_dim,
            "BLOCK_SIZE": self.block_size,
            "WINDOW": self.window,
            "IS_FP8": self.is_fp8,
            "COMPUTE": self._compute,
            "INDEX": tl.int64 if self.is_large else tl.int32,
            # float32 as three products of its leading bits on the tensor cores: as good as float32 to 2^-20, and
            # products without tensor cores would keep both whole tiles in registers.
            "PRECISION": "tf32x3" if self.is_exact else "tf32",
        }

    @property
    def padded(self) -> dict[str, int]:
        """The head dimension as tiles have it."""
        return {"DIM": power_of_two(self.head_dim)}

    @property
    def _compute(self) -> Any:
        """Type of the matrix products; under the interpreter float32, since its bfloat16 products are wrong."""
        if self.is_exact or self.architecture == INTERPRETER:
            return tl.float32
        return tl.float16 if self.is_fp8 or self.dtype == torch.float16 else tl.bfloat16


def typical_shapes() -> Iterator[PagedShape]:
    """On every architecture, shapes with every head dimension, number format and way to find a block between them."""
    bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
    for architecture in ARCHITECTURES:
        shape = functools.partial(PagedShape, architecture)
        yield shape(bf16, bf16, kv_heads=8, group=4, head_dim=128, block_size=16)  # Llama 3
        yield shape(bf16, bf16, kv_heads=4, group=7, head_dim=128, block_size=256)  # Qwen2.5-7B
        yield shape(bf16, FP8, kv_heads=8, group=4, head_dim=128, block_size=64)
        yield shape(fp16, fp16, kv_heads=32, group=1, head_dim=96, block_size=16, window=2047)  # Phi-3-mini
        yield shape(bf16, bf16, kv_heads=2, group=8, head_dim=256, block_size=32)
        yield shape(fp32, fp32, kv_heads=3, group=3, head_dim=64, block_size=16)  # SmolLM2-135M
