"""A fleet put together: clients, a router and replicas under one clock."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.trace_meta import ClientLink
from engine.core.workload import Workload
from roofline.errors import InputError
from roofline.step_time import StepTimeModel
from simulator.fleet.clients import Client
from simulator.fleet.clock import VirtualClock
from simulator.fleet.job import Job
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

    def __post_init__(self) -> None:
        if self.num_replicas < 1:
            raise InputError(f"the fleet has {self.num_replicas} replicas; it must have at least 1.")
        if self.router not in ROUTERS:
            raise InputError(f"router is {self.router!r}; choose one of {', '.join(ROUTERS)}.")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run: until everything is answered or to `until_s`; `progress(n)` is told of every n answers more."""

    until_s: float | None = None
    fast_forward: bool = True
    record_token_times: bool = False
    progress: Callable[[int], None] | None = None


PROGRESS_EVERY = 200


def simulate(
    fleet: FleetSpec,
    step_time: StepTimeModel,
    workload: Workload,
    observer: Observer,
    options: RunOptions | None = None,
) -> list[Replica]:
    """Serve `workload` by `fleet` under virtual time; `observer` sees all of it. Returns the replicas as they end.

    Each request produces exactly its `output_tokens`; the scheduler knows its `max_tokens` only. Requests still under
    way at `until_s` are not reported.
    """
    options = options or RunOptions()
    clock = VirtualClock()
    replicas = [Replica(clock, number, fleet.engine, step_time, observer) for number in range(fleet.num_replicas)]
    route = ROUTERS[fleet.router]()
    client = Client(clock, fleet.client, lambda job: route(replicas, job).submit(job))
    answers = 0

    def note(job: Job) -> None:
        nonlocal answers
        observer.on_finish(job)
        answers += 1
        if options.progress and answers % PROGRESS_EVERY == 0:
            options.progress(PROGRESS_EVERY)

    client.on_answer = note
    for replica in replicas:
        replica.on_done = client.take
        replica.fast_forward = options.fast_forward
        replica.token_times = [] if options.record_token_times else None
    client.start(jobs_of(workload, fleet.engine))
    clock.run(until=options.until_s)
    return replicas


def jobs_of(workload: Workload, engine: EngineConfig) -> Iterator[Job]:
    """The workload's requests as jobs, made when they are needed so that memory does not grow with the run."""
    table = workload.requests
    columns = [table[name].tolist() for name in ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens")]
    names = table["request_id"] if "request_id" in table else range(len(table))
    caching = engine.enable_prefix_caching
    for index, (arrival_s, prompt, output, limit, session, priority, name) in enumerate(
        zip(*columns, table["session_id"], table["priority"].tolist(), names, strict=True)
    ):
        keys = workload.keys(index, engine.block_size) if caching else []
        request = Request(str(name), prompt, limit, arrival_s, priority, keys, unshared_rest=caching)
        yield Job(index, request, min(output, limit, engine.max_model_len - prompt), arrival_s, session)
