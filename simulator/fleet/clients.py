"""Those who send requests: on a schedule, at most so many in flight, some milliseconds away from the engine.

A client sees only what reaches it. Whatever happens behind it, each request ends for it exactly once, in one of the
ways of job.ENDS; an answer that comes after that is dropped.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from numpy.random import Generator
from simpy.events import Event

from engine.core.trace_meta import ClientLink
from simulator.fleet.clock import ARRIVAL, VirtualClock
from simulator.fleet.job import ABORTED, FAILED, FINISHED, TIMED_OUT, Job
from simulator.fleet.patience import RETRYABLE, Patience


class Client:
    """Sends each job at its arrival, or when a place in flight frees; sees answers `to_client_s` after they exist."""

    def __init__(self, clock: VirtualClock, link: ClientLink, patience: Patience | None, rng: Generator) -> None:
        self._clock = clock
        self._limit = link.max_concurrency or math.inf
        self._to_engine_s, self._to_client_s = link.to_engine_s, link.to_client_s
        self._patience, self._rng = patience, rng
        self._in_flight = 0
        self._held: deque[Job] = deque()
        self._releasing = False
        self.last_end_s = 0.0
        self._sources = 0  # of requests, that have not run dry
        self.submit: Callable[[Job], None] = lambda job: None  # what serves
        self.cancel: Callable[[Job], None] = lambda job: None  # what stops serving
        self.on_end: Callable[[Job], None] = lambda job: None

    def start(self, jobs: Iterator[Job]) -> None:
        """Send `jobs`, which come in the order of arrival and are drawn one ahead."""
        self.open_source()
        self._await_next(jobs)

    def open_source(self) -> None:
        """Somebody is there who may offer requests."""
        self._sources += 1

    def close_source(self) -> None:
        """Somebody has no more requests."""
        self._sources -= 1

    @property
    def is_done(self) -> bool:
        """True once every request has ended and none will come."""
        return not (self._sources or self._in_flight or self._held)

    def offer(self, job: Job) -> None:
        """A request has arrived: send it, now or when there is a place."""
        if self._in_flight < self._limit:
            self._in_flight += 1
            if self._clock.now > job.arrival_s:
                job.send_s = job.request.arrival_s = self._clock.now
            self._send(job)
        else:
            self._held.append(job)

    def take(self, job: Job) -> None:
        """The engine is done with `job`: the client has the last token `to_client_s` later."""
        if self._to_client_s:
            self._delay_tokens(job)
            if job.finish_reason is None:
                job.finish_s += self._to_client_s
                self._clock.call_at(job.finish_s, ARRIVAL, lambda _: self._end(job, FINISHED))
                return
        self._end(job, FINISHED)

    def lose(self, job: Job) -> None:
        """The replica of `job` has died with it."""
        if self._to_client_s:
            self._delay_tokens(job)
        if job.finish_reason is None:
            self.refuse(job, FAILED)
        else:
            _trim(job)

    def _delay_tokens(self, job: Job) -> None:
        job.first_token_s += self._to_client_s
        job.token_times_s = [time_s + self._to_client_s for time_s in job.token_times_s]

    def refuse(self, job: Job, reason: str) -> None:
        """Nothing will come of `job`: the client knows `to_client_s` later."""
        if self._to_client_s:
            self._clock.call_at(self._clock.now + self._to_client_s, ARRIVAL, lambda _: self._give_up(job, reason))
        else:
            self._give_up(job, reason)

    def _await_next(self, jobs: Iterator[Job]) -> None:
        job = next(jobs, None)
        if job is None:
            self.close_source()
        else:
            self._clock.call_at(job.arrival_s, ARRIVAL, lambda _: self._arrive(job, jobs))

    def _arrive(self, job: Job, jobs: Iterator[Job]) -> None:
        self.offer(job)
        self._await_next(jobs)

    def _send(self, job: Job) -> None:
        if self._patience is not None:
            self._watch(job, self._patience)
        if self._to_engine_s:
            self._clock.call_at(self._clock.now + self._to_engine_s, ARRIVAL, lambda _: self.submit(job))
        else:
            self.submit(job)

    def _watch(self, job: Job, patience: Patience) -> None:
        """Set the alarms at which the client stops waiting."""
        leaves_after_s = patience.leaves_after_s(self._rng)
        for limit_s, reason in ((patience.timeout_s, TIMED_OUT), (leaves_after_s, ABORTED)):
            if limit_s is not None:
                self._clock.call_at(self._clock.now + limit_s, ARRIVAL, partial(self._leave, job, reason))
        if patience.first_token_timeout_s is not None:
            time_s = self._clock.now + patience.first_token_timeout_s
            self._clock.call_at(time_s, ARRIVAL, lambda _: self._leave_without_token(job))

    def _leave_without_token(self, job: Job) -> None:
        # Seen is what came before now; a token whose delay is not over yet is on its way still.
        delay_s = 0.0 if job.finish_s == job.finish_s else self._to_client_s
        if not job.first_token_s + delay_s <= self._clock.now:
            self._leave(job, TIMED_OUT)

    def _leave(self, job: Job, reason: str, _: Event | None = None) -> None:
        """Stop waiting, and let the engine know."""
        if job.finish_reason is not None:
            return
        self._give_up(job, reason)
        if self._to_engine_s:
            self._clock.call_at(self._clock.now + self._to_engine_s, ARRIVAL, lambda _: self.cancel(job))
        else:
            self.cancel(job)

    def _give_up(self, job: Job, reason: str) -> None:
        if job.finish_reason is None:
            job.finish_s = self._clock.now
            self._end(job, reason)

    def _end(self, job: Job, reason: str) -> None:
        """The client's last word on a request, unless it sends it again."""
        if job.finish_reason is not None:
            _trim(job)
            return
        job.finish_reason = reason
        if reason in RETRYABLE and self._patience is not None and job.attempt < self._patience.retries.attempts:
            self._repeat(job)
            return
        self._in_flight -= 1
        self.last_end_s = self._clock.now
        self.on_end(job)
        if self._held and not self._releasing:
            self._release()

    def _release(self) -> None:
        """Send held requests while there are places; one that is refused at once frees its place again."""
        self._releasing = True
        while self._held and self._in_flight < self._limit:
            self.offer(self._held.popleft())
        self._releasing = False

    def _repeat(self, job: Job) -> None:
        assert self._patience is not None
        time_s = self._clock.now + self._patience.retries.pause_s(job.attempt, self._rng)
        self._clock.call_at(time_s, ARRIVAL, lambda _: self._send(job.again(self._clock.now)))


def _trim(job: Job) -> None:
    """Of a job that its client has given up, forget what came too late to be seen."""
    job.token_times_s = [time_s for time_s in job.token_times_s if time_s <= job.finish_s]
    if not job.first_token_s <= job.finish_s:
        job.first_token_s = math.nan
