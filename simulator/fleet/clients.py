"""Those who send requests: on a schedule, at most so many in flight, some milliseconds away from the engine."""

import math
from collections import deque
from collections.abc import Callable, Iterator

from engine.core.trace_meta import ClientLink
from simulator.fleet.clock import ARRIVAL, VirtualClock
from simulator.fleet.job import Job


class Client:
    """Sends each job at its arrival, or when a place in flight frees; sees answers `to_client_s` after they exist."""

    def __init__(self, clock: VirtualClock, link: ClientLink, submit: Callable[[Job], None]) -> None:
        self._clock = clock
        self._limit = link.max_concurrency or math.inf
        self._to_engine_s, self._to_client_s = link.to_engine_s, link.to_client_s
        self._submit = submit
        self._in_flight = 0
        self._held: deque[Job] = deque()
        self.on_answer: Callable[[Job], None] = lambda job: None

    def start(self, jobs: Iterator[Job]) -> None:
        """Send `jobs`, which come in the order of arrival and are drawn one ahead."""
        job = next(jobs, None)
        if job is not None:
            self._clock.call_at(job.arrival_s, ARRIVAL, lambda _: self._arrive(job, jobs))

    def take(self, job: Job) -> None:
        """The engine's last token of `job` exists: the client has it `to_client_s` later."""
        if self._to_client_s:
            for name in ("first_token_s", "finish_s"):
                setattr(job, name, getattr(job, name) + self._to_client_s)
            job.token_times_s = [time_s + self._to_client_s for time_s in job.token_times_s]
            self._clock.call_at(job.finish_s, ARRIVAL, lambda _: self._answer(job))
        else:
            self._answer(job)

    def _arrive(self, job: Job, jobs: Iterator[Job]) -> None:
        if self._in_flight < self._limit:
            self._send(job)
        else:
            self._held.append(job)
        self.start(jobs)

    def _send(self, job: Job) -> None:
        self._in_flight += 1
        if self._clock.now > job.arrival_s:
            job.send_s = job.request.arrival_s = self._clock.now
        if self._to_engine_s:
            self._clock.call_at(self._clock.now + self._to_engine_s, ARRIVAL, lambda _: self._submit(job))
        else:
            self._submit(job)

    def _answer(self, job: Job) -> None:
        self._in_flight -= 1
        self.on_answer(job)
        if self._held:
            self._send(self._held.popleft())
