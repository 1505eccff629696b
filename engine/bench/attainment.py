"""How close measured steps came to this machine's measured ceilings."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from engine.bench.machine import Machine
from roofline.analytic import AnalyticStepTime
from roofline.hardware import Efficiency
from roofline.model_shape import ModelShape
from roofline.step_time import BatchWork

# The bound itself.
_IDEAL = Efficiency.ideal()
_WORK = BatchWork._fields


@dataclass(frozen=True, slots=True)
class RooflineShare:
    """Fractions of the ceilings over all steps of a run; idle time between steps does not count.

    `fraction` = time the roofline allows / time taken; `mbu` = bytes moved / (time * memory bytes/s);
    `mfu` = FLOPs / (time * matrix-product FLOP/s). Weights that stay in a cache, or a machine that was
    busier while its ceilings were measured, can lift them above 1.
    """

    fraction: float
    mbu: float
    mfu: float
    busy_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def roofline_share(steps: pd.DataFrame, shape: ModelShape, machine: Machine, dtype: str) -> RooflineShare | None:
    """The share over the rows of `steps`; None without steps."""
    if steps.empty:
        return None
    hardware = machine.hardware()
    ideal = AnalyticStepTime(shape, hardware, _IDEAL, weight_dtype=dtype, kv_dtype=dtype)
    bounds = [ideal.breakdown(BatchWork(*work)) for work in steps[list(_WORK)].itertuples(index=False, name=None)]
    busy_s = float(steps["wall_s"].sum())
    return RooflineShare(
        fraction=sum(bound.seconds for bound in bounds) / busy_s,
        mbu=sum(bound.memory_bytes for bound in bounds) / busy_s / hardware.memory_bytes_per_s,
        mfu=sum(bound.flops for bound in bounds) / busy_s / hardware.flops_per_s(dtype),
        busy_s=busy_s,
    )
