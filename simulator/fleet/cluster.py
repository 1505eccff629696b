"""A fleet put together: clients, a router and replicas under one clock."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from engine.core.config import EngineConfig
from engine.core.trace_meta import ClientLink
from engine.core.workload import Workload
from roofline.errors import InputError
from roofline.step_time import StepTimeModel
from simulator.fleet import faults
from simulator.fleet.admission import Admission, AdmissionRules
from simulator.fleet.autoscaler import Autoscaling, Scaled, autoscale
from simulator.fleet.clients import Client
from simulator.fleet.clock import VirtualClock
from simulator.fleet.conversations import Conversations, Talk
from simulator.fleet.demand import jobs_of
from simulator.fleet.disaggregation import Split, SplitGateway
from simulator.fleet.faults import Fault
from simulator.fleet.gateway import Gateway
from simulator.fleet.interconnect import Link
from simulator.fleet.job import Job
from simulator.fleet.patience import Patience
from simulator.fleet.pool import Pool
from simulator.fleet.replica import Replica
from simulator.fleet.router import ROUTERS
from simulator.output.observer import Observer


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """Identical replicas behind a router, and how clients reach them."""

    engine: EngineConfig
    num_replicas: int = 1
    router: str = "least_outstanding"
    client: ClientLink = field(default_factory=ClientLink)
    patience: Patience | None = None  # None: clients wait for as long as it takes
    faults: tuple[Fault, ...] = ()
    admission: AdmissionRules | None = None  # None: everybody is let in
    autoscaling: Autoscaling | None = None  # None: as many replicas as there are
    split: Split | None = None  # None: every replica computes prompts and answers
    seed: int = 0  # of whatever chance decides while the fleet runs

    def __post_init__(self) -> None:
        if self.num_replicas < 1:
            raise InputError(f"the fleet has {self.num_replicas} replicas; it must have at least 1.")
        if self.router not in ROUTERS:
            raise InputError(f"router is {self.router!r}; choose one of {', '.join(ROUTERS)}.")
        faults.check(self.faults, self.num_replicas)
        if self.split is not None:
            self.split.check(self.num_replicas)
            if self.autoscaling is not None:
                raise InputError("an autoscaler does not know which of two kinds of replicas to add; remove one.")

    @property
    def pool_sizes(self) -> tuple[int, ...]:
        """Replicas of each pool: all, or those for prompts and those for answers."""
        if self.split is None:
            return (self.num_replicas,)
        return self.split.prefill_replicas, self.num_replicas - self.split.prefill_replicas

    @property
    def is_plain(self) -> bool:
        """True where nothing between the client and a replica has to know of an end."""
        return self.admission is None and self.split is None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run: until everything is answered or to `until_s`; `progress(n)` is told of every n answers more."""

    until_s: float | None = None
    fast_forward: bool = True
    record_token_times: bool = False
    progress: Callable[[int], None] | None = None
    on_arrival: Callable[[Job], None] | None = None  # of conversations, whose requests come when they come


PROGRESS_EVERY = 200


def simulate(
    fleet: FleetSpec,
    step_time: StepTimeModel,
    load: Workload | Conversations,
    observer: Observer,
    options: RunOptions | None = None,
) -> list[Replica]:
    """Serve `load` by `fleet` under virtual time; `observer` sees all of it. Returns the replicas as they end.

    Each finished request has exactly its `output_tokens`; the scheduler knows its `max_tokens` only. Requests still
    under way at `until_s` are not reported.
    """
    options = options or RunOptions()
    clock = VirtualClock()
    client = Client(clock, fleet.client, fleet.patience, chance(fleet, "patience"))
    client.on_end = _teller(observer, options.progress)

    def build(number: int) -> Replica:
        replica = Replica(clock, number, fleet.engine, step_time, observer)
        replica.on_done = client.take if fleet.is_plain else gateway.done
        replica.on_lost = gateway.lost
        replica.fast_forward = options.fast_forward
        replica.token_times = [] if options.record_token_times else None
        return replica

    gateway, pools = _assemble(fleet, clock, client, build)
    for pool, size in zip(pools, fleet.pool_sizes, strict=True):
        pool.fill(size)
    if isinstance(load, Workload):
        client.start(jobs_of(load, fleet.engine))
    else:
        talk = Talk(load, fleet.engine, client, clock, options.on_arrival)
        client.on_end = _both(client.on_end, talk.note_end)
        talk.start()
    for number, fault in enumerate(fleet.faults):
        faults.start(fault, faults.Scene(clock, pools, chance(fleet, f"fault {number}"), lambda: client.is_done))
    if fleet.autoscaling is not None:
        pools[0].is_elastic = True
        scaled = Scaled(clock, pools[0], lambda: gateway.num_held, lambda: client.is_done)
        clock.process(autoscale(fleet.autoscaling, scaled))
    clock.run(until=options.until_s)
    for pool in pools:
        pool.settle(min(clock.now, client.last_end_s) if client.is_done else clock.now)
    return [replica for pool in pools for replica in pool.replicas.values()]


def _assemble(
    fleet: FleetSpec, clock: VirtualClock, client: Client, build: Callable[[int], Replica]
) -> tuple[Gateway, list[Pool]]:
    """The gateway and the pools behind it, without a replica yet."""
    admission = None if fleet.admission is None else Admission(fleet.admission)
    pool, make_router = Pool(clock, build), ROUTERS[fleet.router]
    route = make_router(chance(fleet, "router"))
    if fleet.split is None:
        gateway = Gateway(clock, pool, route, client, admission)
        return gateway, [pool]
    split, link = fleet.split, Link(clock, fleet.split.link_bytes_per_s, fleet.split.link_latency_s)
    both = SplitGateway(clock, pool, route, client, admission)
    answers = Pool(clock, build, split.prefill_replicas)
    both.split(answers, make_router(chance(fleet, "router of answers")), link, split.kv_bytes_per_token)
    return both, [pool, answers]


def chance(fleet: FleetSpec, purpose: str) -> np.random.Generator:
    """The random stream of one purpose; a new purpose leaves the draws of the others as they are."""
    return np.random.default_rng([fleet.seed, *purpose.encode()])


def _both(first: Callable[[Job], None], second: Callable[[Job], None]) -> Callable[[Job], None]:
    def call(job: Job) -> None:
        first(job)
        second(job)

    return call


def _teller(observer: Observer, progress: Callable[[int], None] | None) -> Callable[[Job], None]:
    """What is called with each request that ends."""
    if progress is None:
        return observer.on_finish
    ends = 0

    def tell(job: Job) -> None:
        nonlocal ends
        observer.on_finish(job)
        ends += 1
        if ends % PROGRESS_EVERY == 0:
            progress(PROGRESS_EVERY)

    return tell
