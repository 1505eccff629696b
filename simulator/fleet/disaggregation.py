"""Prompts on some replicas, answers on others: the KV cache of a prompt crosses a shared link in between.

A request is two jobs. The first computes the prompt and yields the first token; then the prompt's KV is sent, and the
second takes it over on a replica of the other pool, from the second token on. Who has to be computed again there after
a preemption is computed there, prompt and all. The KV is sent whole, also where the receiver has some of it cached.
"""

from dataclasses import dataclass

from engine.core.request import Request
from roofline.errors import InputError
from simulator.fleet.gateway import Gateway
from simulator.fleet.interconnect import Link
from simulator.fleet.job import FAILED, Job
from simulator.fleet.pool import Pool
from simulator.fleet.replica import Replica
from simulator.fleet.router import Router


@dataclass(frozen=True, slots=True)
class Split:
    """So many of the replicas compute prompts only; the others go on from there."""

    prefill_replicas: int
    kv_bytes_per_token: float
    link_bytes_per_s: float
    link_latency_s: float = 0.0

    def check(self, num_replicas: int) -> None:
        """InputError unless both kinds have a replica."""
        if not 0 < self.prefill_replicas < num_replicas:
            raise InputError(
                f"{self.prefill_replicas} of {num_replicas} replicas compute prompts only; both kinds need at least "
                "one: change prefill_share, or give more replicas."
            )


class SplitGateway(Gateway):
    """A gateway in front of two pools; `self._pool` is the one for prompts."""

    def split(self, answers: Pool, route: Router, link: Link, kv_bytes_per_token: float) -> None:
        """Let `answers` go on with what the first pool has begun."""
        self._answers, self._route_answer = answers, route
        self._link, self._kv_bytes_per_token = link, kv_bytes_per_token
        self._stages: dict[Job, Job] = {}  # request -> what a replica has of it
        self._waiting: dict[Job, None] = {}  # second jobs without a replica
        answers.on_change = self._retry_waiting

    def cancel(self, job: Job) -> None:
        """The client of a request has left; what is under way on the link arrives, and is dropped there."""
        stage = self._stages.get(job)
        if stage is None:
            self._drop_held(job)
        elif stage in self._waiting:
            del self._waiting[stage]
            self._end(stage)
        else:
            pool = self._answers if stage.replica in self._answers.replicas else self._pool
            pool.replicas[stage.replica].cancel(stage)

    def done(self, job: Job) -> None:
        """A replica has ended its part of a request."""
        whole = job.origin
        assert whole is not None
        goes_on = whole.finish_reason is None and whole.output_tokens > 1
        if job.replica in self._answers.replicas or not goes_on:
            self._end(job)
            return
        del self._stages[whole]
        whole.request.num_cached_tokens = job.request.num_cached_tokens
        size_bytes = whole.request.num_prompt_tokens * self._kv_bytes_per_token
        self._link.send(size_bytes, lambda: self._go_on(job))

    def lost(self, job: Job) -> None:
        """A replica has died with its part of a request."""
        whole = self._close(job)
        super().lost(whole)

    def _place(self, job: Job) -> None:
        if not self._pool.open:
            super()._place(job)
            return
        old = job.request
        keys = old.block_keys[: old.num_prompt_tokens // self._block_size]
        request = Request(
            old.request_id, old.num_prompt_tokens, 1, old.arrival_s, old.priority, keys, old.unshared_rest
        )
        stage = Job(job.index, request, 1, job.arrival_s, job.session_id, origin=job)
        self._stages[job] = stage
        self._route(self._pool.open, stage).submit(stage)

    def _replicas(self) -> list[Replica]:
        return self._pool.open + self._answers.open

    @property
    def _block_size(self) -> int:
        return self._pool.open[0].scheduler.config.block_size

    def _go_on(self, first: Job) -> None:
        """The KV of a prompt has arrived."""
        whole = first.origin
        assert whole is not None
        if whole.finish_reason is not None:
            self._end(first)
            return
        old = whole.request
        request = Request(
            old.request_id, old.num_prompt_tokens + 1, old.max_tokens - 1, old.arrival_s, old.priority,
            list(old.block_keys), old.unshared_rest, old.num_prompt_tokens,
        )  # fmt: skip
        stage = Job(whole.index, request, whole.output_tokens - 1, whole.arrival_s, whole.session_id, origin=whole)
        stage.first_scheduled_s, stage.token_times_s = first.first_scheduled_s, first.token_times_s
        stage.first_token_s = stage.last_token_s = first.first_token_s
        old.num_preemptions = first.request.num_preemptions
        self._stages[whole] = stage
        self._place_answer(stage)

    def _place_answer(self, stage: Job) -> None:
        if self._answers.open:
            self._route_answer(self._answers.open, stage).submit(stage)
        elif self._answers.expected:
            self._waiting[stage] = None
        else:
            whole = self._close(stage)
            self._settle(whole)
            self._client.refuse(whole, FAILED)

    def _retry_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for stage in waiting:
            self._place_answer(stage)

    def _end(self, stage: Job) -> None:
        whole = self._close(stage)
        if whole.finish_reason is None:
            whole.finish_s = stage.finish_s
        super().done(whole)

    def _close(self, stage: Job) -> Job:
        """The request of a job that has ended, with what the job knows of it."""
        whole = stage.origin
        assert whole is not None
        self._stages.pop(whole, None)
        whole.replica = stage.replica
        whole.first_scheduled_s, whole.first_token_s = stage.first_scheduled_s, stage.first_token_s
        whole.token_times_s = stage.token_times_s
        whole.request.num_preemptions += stage.request.num_preemptions
        if stage.replica not in self._answers.replicas:
            whole.request.num_cached_tokens = stage.request.num_cached_tokens
        return whole
