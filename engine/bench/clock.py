"""The run's clock: seconds since its start, and waiting for a moment of it."""

import time
from typing import Protocol

from engine.bench.interrupt import Interrupt

# The operating system wakes a sleeper late by up to a millisecond; the last stretch is waited for awake.
_SPIN_S = 0.002
_LONGEST_SLEEP_S = 0.05  # so that Ctrl-C is noticed


class Clock(Protocol):
    """Monotone time of one run, in seconds from its start."""

    def now(self) -> float:
        """The time; never less than before."""
        ...

    def wait_until(self, time_s: float, interrupt: Interrupt) -> None:
        """Return at `time_s` or just after it, at once if it has passed, early if interrupted."""
        ...


class WallClock:
    """Real time, starting at construction."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def wait_until(self, time_s: float, interrupt: Interrupt) -> None:
        """Sleep to shortly before `time_s`, then watch the clock."""
        while (left := time_s - self.now()) > 0 and not interrupt.requested:
            if left > _SPIN_S:
                time.sleep(min(left - _SPIN_S, _LONGEST_SLEEP_S))
