"""What goes wrong, and what is done on purpose: crashes, slow replicas, upgrades, spot machines taken back.

Each fault is a value; `start` turns it into a process of the fleet. A replica that dies loses its requests, its KV
cache and the step under way; it comes up empty. One that is drained takes nothing new and ends what it has.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from simpy.events import Event

from roofline.errors import InputError
from simulator.fleet.clock import VirtualClock
from simulator.fleet.pool import Pool
from simulator.fleet.replica import Replica

Process = Generator[Event, None, None]


@dataclass(frozen=True, slots=True)
class Crash:
    """A replica dies at `at_s`; it is up again `restart_s` later (None: never)."""

    replica: int
    at_s: float
    restart_s: float | None = None


@dataclass(frozen=True, slots=True)
class Crashes:
    """Every replica dies now and then, after exponential times, and is up again `restart_s` later."""

    mean_between_s: float
    restart_s: float


@dataclass(frozen=True, slots=True)
class Slowdown:
    """Passes of a replica take `factor` times as long from `at_s` on for `duration_s`."""

    replica: int
    at_s: float
    duration_s: float
    factor: float


@dataclass(frozen=True, slots=True)
class RollingUpgrade:
    """One replica after the other is drained for `drain_s` at most, and is up again `restart_s` later."""

    at_s: float
    drain_s: float
    restart_s: float


@dataclass(frozen=True, slots=True)
class SpotInterruption:
    """At `at_s` the replica takes nothing new, and is gone `notice_s` later; another is up `replace_s` after that."""

    replica: int
    at_s: float
    notice_s: float
    replace_s: float | None = None


Fault = Crash | Crashes | Slowdown | RollingUpgrade | SpotInterruption


def check(faults: tuple[Fault, ...], num_replicas: int) -> None:
    """InputError for a fault that speaks of a replica the fleet does not start with."""
    for fault in faults:
        number = getattr(fault, "replica", 0)
        if not 0 <= number < num_replicas:
            raise InputError(
                f"a fault names replica {number}, and the fleet starts with {num_replicas}, counted from 0; choose one "
                f"of 0 to {num_replicas - 1}."
            )


@dataclass(frozen=True, slots=True)
class Scene:
    """What the faults of a run act on; `is_over()` once every request has ended."""

    clock: VirtualClock
    pools: list[Pool]
    rng: np.random.Generator
    is_over: Callable[[], bool]

    def pool_of(self, number: int) -> Pool:
        """The pool of a replica."""
        return next(pool for pool in self.pools if number in pool.replicas)


def start(fault: Fault, scene: Scene) -> None:
    """Let the fault happen in its time."""
    clock = scene.clock
    match fault:
        case Crash():
            clock.process(_crash(clock, scene.pool_of(fault.replica), fault))
        case Crashes():
            everybody = [(pool, replica) for pool in scene.pools for replica in pool.replicas.values()]
            for (pool, replica), rng in zip(everybody, scene.rng.spawn(len(everybody)), strict=True):
                own = Scene(clock, [pool], rng, scene.is_over)
                clock.process(_crashes(own, fault, replica))
        case Slowdown():
            clock.process(_slowdown(clock, scene.pool_of(fault.replica).replicas[fault.replica], fault))
        case RollingUpgrade():
            clock.process(_rolling_upgrade(clock, scene.pools, fault))
        case SpotInterruption():
            clock.process(_spot_interruption(clock, scene.pool_of(fault.replica), fault))


def drained(clock: VirtualClock, replica: Replica, limit_s: float | None) -> Process:
    """Wait until the replica has no jobs left, or the time is up (None: for as long as it takes)."""
    if replica.num_outstanding:
        replica.emptied = replica.emptied or clock.event()
        yield replica.emptied if limit_s is None else replica.emptied | clock.at(clock.now + limit_s)


def _crash(clock: VirtualClock, pool: Pool, fault: Crash) -> Process:
    yield clock.at(fault.at_s)
    yield from _die(clock, pool, pool.replicas[fault.replica], fault.restart_s)


def _crashes(scene: Scene, fault: Crashes, replica: Replica) -> Process:
    while not scene.is_over():
        yield scene.clock.at(scene.clock.now + scene.rng.exponential(fault.mean_between_s))
        yield from _die(scene.clock, scene.pools[0], replica, fault.restart_s)


def _die(clock: VirtualClock, pool: Pool, replica: Replica, restart_s: float | None) -> Process:
    if not pool.is_serving(replica):
        return
    if restart_s is None:
        pool.stop(replica)
    else:
        yield from _restart(clock, pool, replica, restart_s)


def _restart(clock: VirtualClock, pool: Pool, replica: Replica, restart_s: float) -> Process:
    pool.restart(replica)
    yield clock.at(clock.now + restart_s)
    pool.ready(replica)


def _slowdown(clock: VirtualClock, replica: Replica, fault: Slowdown) -> Process:
    yield clock.at(fault.at_s)
    replica.slow_down(fault.factor)
    yield clock.at(fault.at_s + fault.duration_s)
    replica.slow_down(1.0)


def _rolling_upgrade(clock: VirtualClock, pools: list[Pool], fault: RollingUpgrade) -> Process:
    yield clock.at(fault.at_s)
    for pool, replica in [(each, replica) for each in pools for replica in each.open]:
        if replica not in pool.open:
            continue  # gone since
        pool.close(replica)
        yield from drained(clock, replica, fault.drain_s)
        if pool.is_serving(replica):
            yield from _restart(clock, pool, replica, fault.restart_s)


def _spot_interruption(clock: VirtualClock, pool: Pool, fault: SpotInterruption) -> Process:
    yield clock.at(fault.at_s)
    replica = pool.replicas[fault.replica]
    if replica not in pool.open:
        return
    pool.close(replica)
    yield clock.at(fault.at_s + fault.notice_s)
    yield from _die(clock, pool, replica, fault.replace_s)
