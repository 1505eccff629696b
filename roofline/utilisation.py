"""How much of a machine was used: the one formula behind every MBU and MFU, whatever ceilings they are held against.

MBU = bytes moved / (time * memory bytes/s); MFU = FLOPs / (time * FLOP/s); fraction = the least time that the ceilings
allow / time. Ceilings are a datasheet's or those measured on the machine: a `HardwareSpec` holds either.
"""

from dataclasses import asdict, dataclass
from typing import Any

from roofline.hardware import HardwareSpec


@dataclass(frozen=True, slots=True)
class WorkDone:
    """What had to be moved and computed, each input read once and each output written once, and how long it took."""

    memory_bytes: float
    flops: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Fractions of the ceilings over `busy_s` seconds; above 1 where caches help or the ceilings were measured low."""

    fraction: float
    mbu: float
    mfu: float
    busy_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def bound_s(memory_bytes: float, flops: float, ceilings: HardwareSpec, dtype: str) -> float:
    """Least time in seconds of one operation on operands stored as `dtype`: the larger of its two roofs."""
    return max(memory_bytes / ceilings.memory_bytes_per_s, flops / ceilings.flops_per_s(dtype))


def utilisation(done: WorkDone, ceilings: HardwareSpec, dtype: str, least_s: float | None = None) -> Utilisation:
    """Shares of `ceilings` that work on operands of `dtype` reached; `done.seconds` is positive.

    `least_s` is the bound where the work has several parts, one after the other; without it the work is one operation.
    """
    assert done.seconds > 0, "nothing takes no time"
    if least_s is None:
        least_s = bound_s(done.memory_bytes, done.flops, ceilings, dtype)
    return Utilisation(
        fraction=least_s / done.seconds,
        mbu=done.memory_bytes / done.seconds / ceilings.memory_bytes_per_s,
        mfu=done.flops / done.seconds / ceilings.flops_per_s(dtype),
        busy_s=done.seconds,
    )
