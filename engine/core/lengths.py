"""How long prompts and answers are: distributions of whole token counts of at least 1 that keep the mean asked for.

Real numbers become whole ones by stochastic rounding (x rounds up with probability equal to its fraction) and a bound
truncates the distribution and shifts it back to its mean: rounding or clipping plainly would change the load.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from roofline.errors import InputError

IntArray = NDArray[np.int64]


class LengthDistribution(Protocol):
    """Draws token counts, each at least 1."""

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`count` independent lengths, shape (count,)."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Every length is `tokens`."""

    tokens: int

    def __post_init__(self) -> None:
        _at_least_one("length", self.tokens)

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`count` times the same."""
        return np.full(count, self.tokens, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every whole number from `low` to `high`, both included, is equally likely."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _at_least_one("shortest length", self.low)
        if self.high < self.low:
            raise InputError(f"uniform lengths from {self.low} to {self.high}; the second must not be the smaller one.")

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`count` independent lengths."""
        return rng.integers(self.low, self.high, size=count, endpoint=True)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """One token plus a lognormal part; `mean` and `cv` (standard deviation / mean) are those of the whole length.

    With `longest` the part is truncated there and its location moved so that the mean stays; the spread then is that of
    the truncated distribution.
    """

    mean: float
    cv: float
    longest: int | None = None

    def __post_init__(self) -> None:
        if not 1 < self.mean < math.inf:
            raise InputError(f"lognormal mean length is {self.mean}; it must be above 1 and finite.")
        if not 0 < self.cv < math.inf:
            raise InputError(f"lognormal coefficient of variation is {self.cv}; it must be positive and finite.")
        if self.longest is not None and self.longest < 2 * self.mean:
            raise InputError(
                f"lognormal lengths of mean {self.mean} bounded at {self.longest}: the bound must be at least "
                "twice the mean to leave the distribution its shape; raise it or take uniform lengths."
            )

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        """`count` independent lengths."""
        part_mean, part_cv = self.mean - 1, self.cv * self.mean / (self.mean - 1)
        sigma = math.sqrt(math.log1p(part_cv**2))
        if self.longest is None:
            part = rng.lognormal(math.log(part_mean) - sigma**2 / 2, sigma, size=count)
            return 1 + _round_stochastically(rng, part)
        bound = float(self.longest - 1)
        mu = _truncated_location(part_mean, sigma, bound)
        below = float(ndtr((math.log(bound) - mu) / sigma))
        part = np.exp(mu + sigma * ndtri(rng.uniform(0.0, below, size=count)))
        return 1 + _round_stochastically(rng, np.minimum(part, bound))  # the minimum takes off rounding of exp alone


def parse_lengths(text: str) -> LengthDistribution:
    """`128`, `uniform:64:256`, `lognormal:MEAN:CV` or `lognormal:MEAN:CV:LONGEST` (tokens; CV is a ratio)."""
    kind, _, rest = text.partition(":")
    try:
        if not rest:
            return Fixed(int(text))
        parts = rest.split(":")
        if kind == "uniform" and len(parts) == 2:
            return Uniform(int(parts[0]), int(parts[1]))
        if kind == "lognormal" and len(parts) in (2, 3):
            return LogNormal(float(parts[0]), float(parts[1]), int(parts[2]) if len(parts) == 3 else None)
    except ValueError:
        pass  # no number where one should be: the sentence below says what is understood
    raise InputError(f"length {text!r} is not understood; write 128, uniform:64:256 or lognormal:MEAN:CV[:LONGEST].")


def _at_least_one(what: str, tokens: int) -> None:
    if tokens < 1:
        raise InputError(f"{what} is {tokens} tokens; it must be at least 1.")


def _round_stochastically(rng: np.random.Generator, values: NDArray[np.float64]) -> IntArray:
    """Whole numbers with the same mean: each value goes up with probability equal to its fraction."""
    return np.floor(values + rng.uniform(size=values.shape)).astype(np.int64)


def _truncated_location(mean: float, sigma: float, bound: float) -> float:
    """The mu for which a lognormal(mu, sigma) cut at `bound` has this mean; below bound / 2 there is always one."""

    def excess(mu: float) -> float:
        cut = (math.log(bound) - mu) / sigma
        return math.exp(mu + sigma**2 / 2) * math.exp(log_ndtr(cut - sigma) - log_ndtr(cut)) - mean

    low = math.log(mean) - sigma**2 / 2
    high = low + 1.0
    while excess(high) < 0:
        high += 1.0
    return float(brentq(excess, low, high, xtol=1e-12))
