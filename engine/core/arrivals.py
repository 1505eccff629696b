"""When requests arrive: one family of renewal processes, as functions of a numpy Generator."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from roofline.errors import InputError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ArrivalProcess:
    """Independent gaps of mean 1 / `rate_per_s` and shape `burstiness`: gamma, as `vllm bench serve` has, or Weibull.

    `burstiness` 1 is a Poisson process, below 1 burstier (the coefficient of variation of gamma gaps is
    burstiness ** -0.5), above 1 more regular, infinity constant spacing. `rate_per_s` infinity puts every request at
    time 0. Nothing is clipped: the mean rate is `rate_per_s`.
    """

    rate_per_s: float
    burstiness: float = 1.0
    gaps: Literal["gamma", "weibull"] = "gamma"

    def __post_init__(self) -> None:
        if not self.rate_per_s > 0:
            raise InputError(f"request rate is {self.rate_per_s}; it must be positive (inf: all at once).")
        if not self.burstiness > 0:
            raise InputError(
                f"burstiness is {self.burstiness}; it must be positive (1: Poisson, inf: constant spacing)."
            )

    def gaps_s(self, rng: np.random.Generator, count: int) -> FloatArray:
        """`count` gaps between arrivals, the first being the one before the first request."""
        if math.isinf(self.rate_per_s):
            return np.zeros(count)
        if math.isinf(self.burstiness):
            return np.full(count, 1.0 / self.rate_per_s)
        if self.gaps == "weibull":
            mean = math.gamma(1.0 + 1.0 / self.burstiness)
            return rng.weibull(self.burstiness, size=count) / (self.rate_per_s * mean)
        return rng.gamma(self.burstiness, 1.0 / (self.rate_per_s * self.burstiness), size=count)

    def first(self, rng: np.random.Generator, count: int) -> FloatArray:
        """Arrival times of the first `count` requests, in seconds from the start."""
        return np.cumsum(self.gaps_s(rng, count))

    def until(self, rng: np.random.Generator, duration_s: float) -> FloatArray:
        """All arrival times before `duration_s`; a longer duration from the same stream begins with the same times."""
        if not 0 < duration_s < math.inf:
            raise InputError(f"duration is {duration_s} s; it must be positive and finite.")
        if math.isinf(self.rate_per_s):
            raise InputError("a duration needs a finite request rate; give the number of requests instead.")
        times = np.empty(0)
        while times.size == 0 or times[-1] < duration_s:
            begin = times[-1] if times.size else 0.0
            gaps = self.gaps_s(rng, _CHUNK)
            gaps[0] += begin
            times = np.concatenate([times, np.cumsum(gaps)])
        return times[: int(np.searchsorted(times, duration_s))]


_CHUNK = 4096
