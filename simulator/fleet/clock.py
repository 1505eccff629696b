"""Virtual time: SimPy's event queue, with events at absolute times.

SimPy schedules by delay, and `now + (then - now)` need not equal `then` in floating point. A step that ends at
`start + wall` has to end exactly there, or fast-forward and stepping could differ in a last bit.
"""

from collections.abc import Callable
from heapq import heappop, heappush

import simpy
from simpy.core import EmptySchedule
from simpy.events import Event

# At one instant requests arrive first; then steps end and the next are decided, replica 0's (BOUNDARY), 1's and so on.
ARRIVAL, BOUNDARY = 1, 2


class Alarm(Event):
    """An event that is sure to happen, and then calls one function."""

    def __init__(self, env: simpy.Environment, action: Callable[[Event], None]) -> None:
        self.env, self.callbacks, self._value, self._ok = env, [action], None, True


class VirtualClock(simpy.Environment):
    """SimPy's environment; time is seconds since the run's start, `phase` the priority of the event at hand."""

    phase: int = ARRIVAL

    def step(self) -> None:
        """Process the next event, as SimPy does, and keep its phase; most of a run's events pass through here."""
        try:
            self._now, self.phase, _, event = heappop(self._queue)
        except IndexError:
            raise EmptySchedule from None
        callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]  # None: processed
        for callback in callbacks:
            callback(event)
        if not event._ok and not event.defused:
            raise event._value

    def call_at(self, time_s: float, priority: int, action: Callable[[Event], None]) -> Event:
        """Call `action(event)` at `time_s`, which is not in the past; events order by (time, priority, sequence).

        An arrival that an event at this very instant causes comes after the boundaries that are over, not before them.
        """
        if priority == ARRIVAL and time_s <= self.now:
            priority = max(ARRIVAL, self.phase)
        alarm = Alarm(self, action)
        heappush(self._queue, (time_s, priority, next(self._eid), alarm))  # type: ignore[misc]  # any int orders
        return alarm

    def at(self, time_s: float) -> Event:
        """What a process yields to go on at `time_s`, or now where that is past."""
        return self.call_at(max(time_s, self.now), ARRIVAL, _nothing)

    def schedule(self, event: Event, priority: int = ARRIVAL, delay: float = 0) -> None:
        """SimPy's own events; one that happens at once keeps to the phase, as `call_at` does."""
        super().schedule(event, max(priority, self.phase) if not delay else priority, delay)  # type: ignore[arg-type]


def _nothing(_: Event) -> None:
    """The process that waits for the event is called besides."""
