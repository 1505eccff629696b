"""Root-mean-square normalisation, alone or with the residual addition before it: kernel, launcher, torch reference.

One program normalises one row, which stays in registers between its one load and its one store, so a pass moves each
value once each way. The kernel rounds where the reference does.
"""

import functools

import torch
from torch import Tensor

from engine.kernels.kernel_config import KernelConfig, assert_aligned, dtype_name, pointer, power_of_two, shipped_shapes
from engine.kernels.triton_language import jit, tl


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension.

    x: [..., n]; weight: [n]; returns x's shape and dtype. The mean and the scaling are float32, and the product with
    the weight is in x's dtype, as Llama's reference implementation rounds it.
    """
    if x.is_cuda:
        return launch(x, None, weight, eps)
    wide = x.float()
    scale = wide.square().sum(-1, keepdim=True).mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (wide * scale).to(x.dtype) * weight


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`residual += x`, in place, and the `rms_norm` of the sum; x, residual: [..., n] of one dtype, contiguous."""
    if x.is_cuda:
        return launch(x, residual, weight, eps)
    return rms_norm(residual.add_(x), weight, eps)


def launch(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """Run the kernel: `add_rms_norm`, or `rms_norm` where residual is None. x, residual: contiguous [..., n]."""
    out = torch.empty_like(x)
    assert x.is_contiguous() and (residual is None or residual.is_contiguous())
    assert_aligned(x, residual, weight, out)
    num_columns = x.shape[-1]
    num_rows = x.numel() // num_columns
    if num_rows:
        plan = config(num_columns, x.dtype, residual is not None)
        _kernel[(num_rows,)](x, residual, weight, out, eps, **plan.keywords)
    return out


@jit
def _kernel(x_ptr, residual_ptr, weight_ptr, out_ptr, eps, N: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * N
    columns = tl.arange(0, BLOCK)
    inside = columns < N
    x = tl.load(x_ptr + row + columns, mask=inside, other=0.0)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0)
    wide = x.to(tl.float32)
    if residual_ptr is not None:
        before = tl.load(residual_ptr + row + columns, mask=inside, other=0.0)
        summed = (wide + before.to(tl.float32)).to(x.dtype)
        tl.store(residual_ptr + row + columns, summed, mask=inside)
        wide = summed.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / N + eps)
    normed = (wide * scale).to(x.dtype).to(tl.float32)
    tl.store(out_ptr + row + columns, (normed * weight.to(tl.float32)).to(x.dtype), mask=inside)


@functools.lru_cache(maxsize=4096)
def config(num_columns: int, dtype: torch.dtype, adds: bool) -> KernelConfig:
    """How rows of `num_columns` are normalised: 16 bytes a thread and load, two loads where rows are long."""
    block = power_of_two(num_columns)
    tensors = ["x_ptr", "weight_ptr", "out_ptr"] + (["residual_ptr"] if adds else [])
    return KernelConfig(
        name=f"{'add_' if adds else ''}rms_norm {dtype_name(dtype)} n={num_columns}",
        kernel=_kernel,
        types=dict.fromkeys(tensors, pointer(dtype)) | {"eps": "fp32"},
        absent=frozenset() if adds else frozenset({"residual_ptr"}),
        choices={"N": num_columns, "BLOCK": block},
        num_warps=min(max(block * dtype.itemsize // (2 * 16 * 32), 1), 16),
        machine_code=(r"LDG\.E.*\.128", r"STG\.E.*\.128"),
    )


def configs() -> tuple[KernelConfig, ...]:
    """One of the catalogue's sizes for each block length; alone, and in float32, for the smallest."""
    sizes = {power_of_two(shape.hidden_size): shape.hidden_size for shape in shipped_shapes()}
    smallest = min(sizes.values())
    adding = (config(size, torch.bfloat16, adds=True) for size in sorted(sizes.values()))
    return (*adding, config(smallest, torch.bfloat16, adds=False), config(smallest, torch.float32, adds=True))
