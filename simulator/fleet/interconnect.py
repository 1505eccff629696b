"""A link that transfers share: each of n gets 1 / n of its bandwidth, so a transfer takes longer the more there are."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from simpy.events import Event

from roofline.errors import InputError
from simulator.fleet.clock import ARRIVAL, VirtualClock


class Link:
    """Takes `send(size_bytes, deliver)`; calls `deliver()` when the last byte has come.

    All transfers under way have had the same number of bytes since the last of them began, so one counter of bytes a
    transfer serves all: a transfer ends when the counter has grown by its size.
    """

    def __init__(self, clock: VirtualClock, bytes_per_s: float, latency_s: float = 0.0) -> None:
        if not bytes_per_s > 0 or not 0 <= latency_s < float("inf"):
            raise InputError(f"a link of {bytes_per_s} bytes/s and {latency_s} s; give a positive rate and a latency.")
        self._clock = clock
        self._bytes_per_s, self._latency_s = bytes_per_s, latency_s
        self._each_bytes = 0.0  # had by whoever has been there from the start
        self._as_of_s = 0.0
        self._ends: list[tuple[float, int, Callable[[], None]]] = []  # heap of (counter at the end, tie, deliver)
        self._tie = count()
        self._alarm: Event | None = None

    def send(self, size_bytes: float, deliver: Callable[[], None]) -> None:
        """Begin a transfer now."""
        self._advance()
        heappush(self._ends, (self._each_bytes + size_bytes, next(self._tie), deliver))
        self._set_alarm()

    def _advance(self) -> None:
        now_s = self._clock.now
        if self._ends:
            self._each_bytes += (now_s - self._as_of_s) * self._bytes_per_s / len(self._ends)
        self._as_of_s = now_s

    def _set_alarm(self) -> None:
        left_bytes = max(0.0, self._ends[0][0] - self._each_bytes)
        time_s = self._clock.now + left_bytes * len(self._ends) / self._bytes_per_s
        self._alarm = self._clock.call_at(time_s, ARRIVAL, self._on_end)

    def _on_end(self, alarm: Event) -> None:
        if alarm is not self._alarm:
            return  # another transfer has begun since
        self._advance()
        end_bytes, _, deliver = heappop(self._ends)
        self._each_bytes = end_bytes  # exact, whatever the sums above have rounded
        if self._ends:
            self._set_alarm()
        if self._latency_s:
            self._clock.call_at(self._clock.now + self._latency_s, ARRIVAL, lambda _: deliver())
        else:
            deliver()
