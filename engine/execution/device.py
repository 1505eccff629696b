"""Which device the engine computes on, and what suits it."""

from typing import Any

import torch

from roofline.errors import InputError

DEVICES = ("auto", "cpu", "cuda")

# A prefill chunk stalls every decode of its step: 512 tokens take this engine's CPU about half a second, and 8192 a
# large GPU. A CPU without bfloat16 instructions computes float32 2 to 5 times faster.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"dtype": "fp32", "max_num_seqs": 64, "max_num_batched_tokens": 512, "async_scheduling": False},
    "cuda": {"dtype": "bf16", "max_num_seqs": 256, "max_num_batched_tokens": 8192, "async_scheduling": True},
}


def choose_device(name: str) -> torch.device:
    """The device that a user names; `auto` is a GPU where there is one.

    Raises `InputError` for another name, and for a GPU that is not there or for which triton is missing.
    """
    if name not in DEVICES:
        raise InputError(f"device is {name!r}; choose {', '.join(DEVICES[:-1])} or {DEVICES[-1]}.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError("device is 'cuda', but torch finds no NVIDIA GPU here; use --device cpu, or check the driver.")
    from engine.kernels.triton_language import HAS_TRITON

    if not HAS_TRITON:
        raise InputError("a GPU needs the package triton, which is not installed; install it, or use --device cpu.")
    return torch.device("cuda", torch.cuda.current_device())


def defaults_of(device: torch.device) -> dict[str, Any]:
    """Number format and scheduler settings for who names none."""
    return dict(_DEFAULTS[device.type])
