"""How many replicas there are, decided by the load: the rule of Kubernetes' horizontal autoscaler.

At every look the load over the load that one replica should have says how many are wanted. More are begun once that has
been wanted for `up_delay_s`, fewer are kept once nothing more has been wanted for `down_delay_s`; a new one takes
`start_s` to load its model, one that goes first ends what it has.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from simpy.events import Event

from roofline.errors import InputError
from simulator.fleet.clock import VirtualClock
from simulator.fleet.faults import drained
from simulator.fleet.pool import Pool
from simulator.fleet.replica import Replica

Gauge = Literal["outstanding", "waiting", "kv_use"]


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """`target` is what one replica should have: requests outstanding, requests waiting, or share of KV blocks."""

    max_replicas: int
    target: float
    gauge: Gauge = "outstanding"
    min_replicas: int = 1
    interval_s: float = 15.0
    up_delay_s: float = 0.0
    down_delay_s: float = 300.0
    start_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise InputError(
                f"the autoscaler keeps {self.min_replicas} to {self.max_replicas} replicas; the lower bound must be at "
                "least 0 and the upper at least 1 and not below it."
            )
        if not self.target > 0 or not self.interval_s > 0:
            raise InputError(
                f"the autoscaler's target is {self.target} and its interval {self.interval_s} s; both must be positive."
            )


@dataclass(frozen=True, slots=True)
class Scaled:
    """What an autoscaler looks at and acts on; `is_over()` once every request has ended."""

    clock: VirtualClock
    pool: Pool
    num_held: Callable[[], int]  # requests that no replica has yet
    is_over: Callable[[], bool]


def autoscale(spec: Autoscaling, scaled: Scaled) -> Generator[Event, None, None]:
    """Look at the load and change the number of replicas, until all is over."""
    clock, pool = scaled.clock, scaled.pool
    wanted: deque[tuple[float, int]] = deque()
    window_s = max(spec.up_delay_s, spec.down_delay_s)
    while not scaled.is_over():
        yield clock.at(clock.now + spec.interval_s)
        want = replicas_wanted(spec, pool.open, pool.expected, scaled.num_held())
        wanted.append((clock.now, want))
        while wanted[0][0] < clock.now - window_s:
            wanted.popleft()
        least = min(number for time_s, number in wanted if time_s >= clock.now - spec.up_delay_s)
        most = max(number for time_s, number in wanted if time_s >= clock.now - spec.down_delay_s)
        current = len(pool.open) + pool.expected
        for _ in range(least - current):
            _add(spec, clock, pool)
        for replica in reversed(pool.open[len(pool.open) - max(0, current - most) :]):
            clock.process(_remove(clock, pool, replica))


def replicas_wanted(spec: Autoscaling, open_: Sequence[Replica], expected: int, held: int) -> int:
    """The number of replicas whose load would be the target, within the bounds."""
    if spec.gauge == "waiting":
        want = _by_queue(spec, open_, expected, held)
    elif spec.gauge == "outstanding":
        want = math.ceil((held + sum(replica.num_outstanding for replica in open_)) / spec.target)
    else:
        want = max(math.ceil(sum(replica.kv_use for replica in open_) / spec.target), held > 0)
    return min(max(want, spec.min_replicas), spec.max_replicas)


def _by_queue(spec: Autoscaling, open_: Sequence[Replica], expected: int, held: int) -> int:
    """As many more as the queue is too long for; one less where the others have places for all. An empty queue alone
    says nothing: a fleet that is just large enough has one."""
    current = len(open_) + expected
    waiting = held + sum(replica.scheduler.num_waiting for replica in open_)
    if waiting > spec.target * current:
        return max(current, math.ceil(max(current, 1) * waiting / (spec.target * max(current, 1))))
    places = sum(replica.scheduler.config.max_num_seqs for replica in open_[:-1])
    outstanding = sum(replica.num_outstanding for replica in open_)
    return current - (waiting == 0 and not expected and outstanding <= places)


def _add(spec: Autoscaling, clock: VirtualClock, pool: Pool) -> None:
    """One more replica: one that is on its way out, else one that was stopped, else a new one."""
    leaving = pool.leaving()
    if leaving:
        pool.reopen(leaving[0])
        return
    stopped = pool.stopped()
    clock.process(_load(clock, pool, pool.begin(stopped[0] if stopped else None), spec.start_s))


def _load(clock: VirtualClock, pool: Pool, replica: Replica, start_s: float) -> Generator[Event, None, None]:
    yield clock.at(clock.now + start_s)
    pool.ready(replica)


def _remove(clock: VirtualClock, pool: Pool, replica: Replica) -> Generator[Event, None, None]:
    pool.retire(replica)
    yield from drained(clock, replica, None)
    if pool.is_leaving(replica) and not replica.num_outstanding:
        pool.stop(replica)
