"""How close measured steps came to the ceilings: those measured on this machine, and the vendor's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from engine.bench.machine import Machine
from roofline.analytic import AnalyticStepTime
from roofline.hardware import Efficiency, HardwareSpec
from roofline.model_shape import ModelShape
from roofline.step_time import BatchWork
from roofline.utilisation import Utilisation, WorkDone, utilisation

# The bound itself.
_IDEAL = Efficiency.ideal()
_WORK = BatchWork._fields


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model as it was served: its shape and the number formats of its weights and of its cache."""

    shape: ModelShape
    weight_dtype: str
    kv_dtype: str


@dataclass(frozen=True, slots=True)
class Shares:
    """Utilisation over all steps of a run; idle time between steps does not count.

    `measured` is held against the machine's measured ceilings, `datasheet` against the vendor's peaks (None where there
    are none), each over the steps' wall time. Weights that stay in a cache, or a machine that was busier while its
    ceilings were measured, can lift the former above 1.
    """

    measured: Utilisation
    datasheet: Utilisation | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        vendor = None if self.datasheet is None else self.datasheet.as_dict()
        return {**self.measured.as_dict(), "datasheet": vendor}


def shares(steps: pd.DataFrame, served: ServedModel, machine: Machine) -> Shares | None:
    """The shares over the rows of `steps`; None without steps."""
    if steps.empty:
        return None
    vendor = machine.datasheet()
    return Shares(
        measured=roofline_share(steps, served, machine.hardware()),
        datasheet=None if vendor is None else roofline_share(steps, served, vendor),
    )


def roofline_share(steps: pd.DataFrame, served: ServedModel, ceilings: HardwareSpec) -> Utilisation:
    """The share of `ceilings` over the rows of `steps`, at least one."""
    ideal = AnalyticStepTime(served.shape, ceilings, _IDEAL, weight_dtype=served.weight_dtype, kv_dtype=served.kv_dtype)
    parts = np.zeros(3)
    for work in steps[list(_WORK)].itertuples(index=False, name=None):
        bound = ideal.breakdown(BatchWork(*work))
        parts += (bound.seconds, bound.memory_bytes, bound.flops)
    least_s, memory_bytes, flops = parts.tolist()
    done = WorkDone(memory_bytes, flops, float(steps["wall_s"].sum()))
    return utilisation(done, ceilings, served.weight_dtype, least_s)
