"""The same figures by class of request: tenant, priority, or how long prompts and answers are.

Those whom a target is missed for are seldom spread evenly, and an average hides them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine.core import metrics
from engine.core.metrics import Slo
from roofline.errors import InputError
from simulator.output.results import Estimate
from simulator.planning.interval import percentile_estimate, share_estimate

Classes = Callable[[pd.DataFrame], "pd.Series[str]"]


def _by_length(column: str) -> Classes:
    """Classes that double: up to 16, 17 to 32, 33 to 64 ... tokens, in order."""

    def name(tokens: int) -> str:
        top = max(16, 1 << (int(tokens) - 1).bit_length())
        return f"{top // 2 + 1 if top > 16 else 1:,} to {top:,}"

    return lambda requests: requests[column].map(name)


def _by_column(column: str) -> Classes:
    return lambda requests: requests[column].astype(str)


CLASSES: dict[str, Classes] = {
    "tenant": _by_column("tenant"),
    "priority": _by_column("priority"),
    "prompt_tokens": _by_length("prompt_tokens"),
    "output_tokens": _by_length("output_tokens"),
    "replica": _by_column("replica"),
}


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class: how many asked, the share that got every target in time, and percentiles of who completed."""

    name: str
    num_requests: int
    num_completed: int
    attainment: Estimate | None  # of all requests of the class, failed ones too; None without targets
    goodput_per_s: float | None  # over the makespan of the whole run
    ttft_s: Estimate  # the percentile asked for; NaN where nobody completed
    tpot_s: Estimate


def by_class(requests: pd.DataFrame, name: str, slo: Slo | None = None, percentile: float = 99.0) -> list[ClassResult]:
    """The classes, by number or length where they have one, else as they appear; InputError for an unknown one."""
    if name not in CLASSES or name not in requests:
        known = ", ".join(one for one in CLASSES if one in requests)
        raise InputError(f"requests have no class {name!r}; choose one of {known}.")
    duration_s = metrics.makespan_s(requests)
    order = requests.sort_values(name, kind="stable") if pd.api.types.is_numeric_dtype(requests[name]) else requests
    names = CLASSES[name](order)
    found = []
    for one in dict.fromkeys(names):
        own = requests.loc[names.index[names == one]].sort_index()
        good = None if slo is None else metrics.meets(own, slo)
        found.append(
            ClassResult(
                name=str(one), num_requests=len(own), num_completed=int(metrics.completed(own).sum()),
                attainment=None if good is None else share_estimate(good.astype(np.float64)),
                goodput_per_s=None if good is None or not duration_s > 0 else float(good.sum() / duration_s),
                ttft_s=_percentile(metrics.ttft_s(own), percentile),
                tpot_s=_percentile(metrics.tpot_s(own), percentile),
            )
        )  # fmt: skip
    return found


def _percentile(values: metrics.FloatArray, percentile: float) -> Estimate:
    return percentile_estimate(values[~np.isnan(values)], percentile)
