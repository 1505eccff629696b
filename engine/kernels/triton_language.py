"""Triton where it is installed; where it is not, stand-ins with which kernels can be defined and never launched.

A kernel file imports `jit` and `tl` from here and needs no guards: on a CPU without triton its torch reference is all
that runs.
"""

from types import SimpleNamespace
from typing import Any

try:
    import triton.language as tl
    from triton import jit

    HAS_TRITON = True
except ModuleNotFoundError:
    HAS_TRITON = False
    tl: Any = SimpleNamespace(constexpr=lambda value: value)  # type: ignore[no-redef]

    def jit(fn: Any = None, **_: Any) -> Any:  # type: ignore[misc]
        """Leave the function as it is, with or without options."""
        return fn if fn is not None else lambda decorated: decorated


__all__ = ["HAS_TRITON", "jit", "tl"]
