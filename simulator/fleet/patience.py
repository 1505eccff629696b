"""How long clients wait, and what they do then: time limits, users who leave, and sending again after a pause.

Sending again adds load just when there is too much of it; with a time limit that the work of requests already given up
pushes others beyond, a fleet can stay overloaded after the cause is gone.
"""

from dataclasses import dataclass

from numpy.random import Generator

from roofline.errors import InputError
from simulator.fleet.job import FAILED, REJECTED, TIMED_OUT

RETRYABLE = (TIMED_OUT, REJECTED, FAILED)  # who aborts does not want the answer any more


@dataclass(frozen=True, slots=True)
class Retries:
    """Send again after a pause of `backoff_s * factor ** (n - 1)` before the n-th repetition, shortened by chance.

    `jitter` is the greatest share of a pause that chance takes off: 0 keeps clients in step, 1 spreads them best.
    """

    attempts: int = 1  # sendings of one request at most, the first included
    backoff_s: float = 1.0
    factor: float = 2.0
    jitter: float = 1.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError(f"attempts is {self.attempts}; it counts the first sending too and must be at least 1.")
        if not 0 <= self.backoff_s < float("inf") or not 1 <= self.factor < float("inf") or not 0 <= self.jitter <= 1:
            raise InputError(
                f"retries have backoff_s {self.backoff_s}, factor {self.factor} and jitter {self.jitter}; give a pause "
                "of at least 0 s, a factor of at least 1 and a jitter from 0 to 1."
            )

    def pause_s(self, sent: int, rng: Generator) -> float:
        """Seconds before the next sending, after `sent` of them."""
        whole_s = self.backoff_s * float(self.factor) ** (sent - 1)
        return whole_s * (1.0 - self.jitter * rng.random()) if self.jitter else whole_s


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits count from each sending; None: no limit. A share of users leaves after an exponential time."""

    timeout_s: float | None = None  # for the whole answer
    first_token_timeout_s: float | None = None
    abort_share: float = 0.0
    abort_after_s: float = 0.0  # mean
    retries: Retries = Retries()

    def __post_init__(self) -> None:
        for name in ("timeout_s", "first_token_timeout_s"):
            limit_s = getattr(self, name)
            if limit_s is not None and not 0 < limit_s < float("inf"):
                raise InputError(f"{name} is {limit_s} s; it must be positive, or left out where there is no limit.")
        if not 0 <= self.abort_share <= 1 or not 0 <= self.abort_after_s < float("inf"):
            raise InputError(
                f"a share of {self.abort_share} of the users leaves after {self.abort_after_s} s on average; give a "
                "share from 0 to 1 and seconds of at least 0."
            )

    def leaves_after_s(self, rng: Generator) -> float | None:
        """When the user of a request goes away, counted from the sending; None: stays."""
        if not self.abort_share or rng.random() >= self.abort_share:
            return None
        return float(rng.exponential(self.abort_after_s))
