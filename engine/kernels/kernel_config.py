"""One way a kernel is compiled, as data: what the launcher uses, and what is proven of it without a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.core.supported_models import unsupported_traits
from roofline.model_shape import ModelShape, catalogue_names

ALIGNMENT_BYTES = 16  # Triton's: the width of the widest load, and what the compiler is told of every pointer
ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200

_TRITON_NAMES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.int32: "i32",
    torch.int64: "i64",
}


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """A kernel with everything that decides its machine code.

    types: Triton's type of each run-time argument ("*bf16", "i32", "fp32"); pointers are taken as multiples of
    `ALIGNMENT_BYTES`, and so are the integers in `divisible`, which the launcher has to keep (`assert_aligned`).
    absent: optional tensors that are None. choices: the compile-time arguments, which the launch passes as keywords.
    machine_code: regular expressions of SASS opcodes that have to be there, on every architecture or, as a pair
    (architecture, expression), on one.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    choices: Mapping[str, Any]
    absent: frozenset[str] = frozenset()
    divisible: frozenset[str] = frozenset()
    num_warps: int = 4
    num_stages: int = 3
    max_registers: int | None = None  # a thread; given, ptxas does not spill for the sake of more programs at once
    architectures: tuple[int, ...] = ARCHITECTURES
    machine_code: tuple[str | tuple[int, str], ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The compiler's options, as keywords of a launch.

        Products and sums fuse: the default of triton up to 3.9 changes after it, and says so in a warning.
        """
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}
        return options if self.max_registers is None else options | {"maxnreg": self.max_registers}

    def instructions(self, architecture: int) -> tuple[str, ...]:
        """Expressions of `machine_code` that hold on an architecture."""
        pairs = ((architecture, entry) if isinstance(entry, str) else entry for entry in self.machine_code)
        return tuple(pattern for holds_on, pattern in pairs if holds_on == architecture)

    @property
    def keywords(self) -> dict[str, Any]:
        """What a launch passes beside the run-time arguments."""
        return {**self.choices, **self.options}


def pointer(dtype: torch.dtype) -> str:
    """Triton's name of a pointer to values of a torch type."""
    return f"*{_TRITON_NAMES[dtype]}"


def assert_aligned(*tensors: Tensor | None) -> None:
    """What a `KernelConfig` takes for granted of pointers; a launch with another pointer compiles slower code."""
    for tensor in tensors:
        assert tensor is None or tensor.data_ptr() % ALIGNMENT_BYTES == 0


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`: blocks of a kernel have no other length."""
    return 1 << (number - 1).bit_length()


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def shipped_shapes() -> tuple[ModelShape, ...]:
    """The models whose sizes are compiled ahead of time: those of the catalogue that the engine computes."""
    shapes = (ModelShape.from_catalogue(name) for name in catalogue_names())
    return tuple(shape for shape in shapes if not unsupported_traits(shape))
