"""The gated activation of a SwiGLU block: kernel, launcher, torch reference.

A program takes a piece of one row, so that a single token too is spread over several processors.
"""

import functools

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from engine.kernels.kernel_config import KernelConfig, assert_aligned, dtype_name, pointer, power_of_two, shipped_shapes
from engine.kernels.triton_language import jit, tl

PIECE_BYTES = 4096  # of gate and of up: two 16-byte loads a thread each, for 128 threads


def silu_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`, where gate_up: [tokens, 2 * n] holds gate in its first half; returns [tokens, n]."""
    if gate_up.is_cuda:
        return launch(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def launch(gate_up: Tensor) -> Tensor:
    """Run the kernel; gate_up: contiguous. Rounds where the reference does: after silu, and after the product."""
    num_tokens, width = gate_up.shape
    out = gate_up.new_empty(num_tokens, width // 2)
    assert gate_up.is_contiguous() and width % 2 == 0
    assert_aligned(gate_up, out)
    if num_tokens:
        plan = config(width // 2, gate_up.dtype)
        _kernel[num_tokens, -(-width // 2 // plan.choices["BLOCK"])](gate_up, out, **plan.keywords)
    return out


@jit
def _kernel(gate_up_ptr, out_ptr, N: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < N
    gate = tl.load(gate_up_ptr + token * (2 * N) + columns, mask=inside, other=0.0)
    up = tl.load(gate_up_ptr + token * (2 * N) + N + columns, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    activated = (wide / (1 + tl.exp(-wide))).to(gate.dtype).to(tl.float32)
    tl.store(out_ptr + token * N + columns, (activated * up.to(tl.float32)).to(gate.dtype), mask=inside)


@functools.lru_cache(maxsize=4096)
def config(num_columns: int, dtype: torch.dtype) -> KernelConfig:
    """How rows of `num_columns` gates and as many ups are cut."""
    return KernelConfig(
        name=f"silu_mul {dtype_name(dtype)} n={num_columns}",
        kernel=_kernel,
        types={"gate_up_ptr": pointer(dtype), "out_ptr": pointer(dtype)},
        choices={"N": num_columns, "BLOCK": min(PIECE_BYTES // dtype.itemsize, power_of_two(num_columns))},
        machine_code=(r"LDG\.E.*\.128", r"STG\.E.*\.128"),
    )


def configs() -> tuple[KernelConfig, ...]:
    """The catalogue's smallest and largest sizes, which share one block length; float32 for the smallest."""
    sizes = {shape.intermediate_size for shape in shipped_shapes()}
    least, most = min(sizes), max(sizes)
    return config(least, torch.bfloat16), config(most, torch.bfloat16), config(least, torch.float32)
