"""Where the kernels of these tests run, and a device's arithmetic where that is Triton's interpreter."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.kernels.triton_language import HAS_TRITON
from tests.conftest import HAS_NVIDIA_GPU


@pytest.fixture(scope="session")
def device() -> str:
    """The CPU, under Triton's interpreter, or the GPU of this machine."""
    if not HAS_TRITON:
        pytest.skip("triton is not installed")
    return "cuda" if HAS_NVIDIA_GPU else "cpu"


@pytest.fixture(autouse=True)
def _device_arithmetic() -> Any:
    """What the interpreter does other than a device, seen in triton 3.6.0 to 3.9.0.

    It cuts float32 to bfloat16 and loses a carry on the way to float8, where devices round to nearest even: torch
    converts for it. And numpy warns of an infinity that a device just has.
    """
    if not HAS_TRITON or HAS_NVIDIA_GPU:
        yield
        return
    from triton.runtime import interpreter

    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(interpreter, "_convert_float", _converted)
        yield


def _converted(values: np.ndarray, source: Any, target: Any, _rounding_mode: Any) -> np.ndarray:
    """Bits of `values`, an array of the Triton type `source`, as the Triton type `target`."""
    raw = torch.from_numpy(np.frombuffer(values.tobytes(), np.uint8).copy())
    narrow = raw.view(_torch_type(source)).to(_torch_type(target)).view(torch.uint8).numpy()
    return narrow.view(f"u{target.primitive_bitwidth // 8}").reshape(values.shape)


def _torch_type(kind: Any) -> torch.dtype:
    names = {"bf16": "bfloat16", "fp8e4nv": "float8_e4m3fn", "fp16": "float16", "fp32": "float32", "fp64": "float64"}
    return getattr(torch, names[kind.name])
