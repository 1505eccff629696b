"""A run as a trace: every step and request, exact, in the format measured ones have."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from engine.core.config import EngineConfig
from engine.core.records import RequestRecord, StepLog, StepTiming, requests_table
from engine.core.trace import Trace
from simulator.fleet.job import Job
from simulator.output.observer import StepRun


class TraceRecorder:
    """Keeps everything; memory grows with the run.

    Steps of several replicas stand in the order of their starts; a column `replica` tells them apart.
    """

    def __init__(self, engine: EngineConfig) -> None:
        self._steps = StepLog(engine.usable_blocks)
        self._replica_of_step: list[int] = []
        self._jobs: list[Job] = []

    def on_steps(self, replica: int, run: StepRun) -> None:
        """Note each step."""
        used, waiting = run.occupancy()
        starts_s = accumulate(run.walls_s, initial=run.start_s)
        for i, (start_s, wall_s) in enumerate(zip(starts_s, run.walls_s, strict=False)):
            row = run.batch.later(i, used[i]) if i else run.batch
            row = row._replace(num_waiting=waiting[i])
            self._steps.add(row, StepTiming(start_s, wall_s, device_s=wall_s))
        self._replica_of_step.extend([replica] * len(run.walls_s))

    def on_gaps(self, gaps_s: Sequence[float], count: int) -> None:
        """Gaps follow from the token times."""

    def on_finish(self, job: Job) -> None:
        """Note a request."""
        self._jobs.append(job)

    def trace(self, meta: dict[str, Any]) -> Trace:
        """All that was noted, requests in the order of arrival; `meta` says what was simulated."""
        jobs = sorted(self._jobs, key=lambda job: job.index)
        requests = requests_table(record_of(job) for job in jobs).assign(replica=[job.replica for job in jobs])
        if any(job.tenant is not None for job in jobs):
            requests["tenant"] = [job.tenant for job in jobs]
        if any(job.attempt > 1 for job in jobs):
            requests["attempts"] = [job.attempt for job in jobs]
        steps = self._steps.table().assign(replica=self._replica_of_step)
        steps = steps.sort_values(["start_s", "replica"], kind="stable", ignore_index=True)
        steps["step"] = np.arange(len(steps))
        return Trace({**meta, "simulated": True}, steps, requests, source="the simulation")


def record_of(job: Job) -> RequestRecord:
    """A finished job as a row of the requests table."""
    request = job.request
    return RequestRecord(
        request_id=request.request_id, arrival_s=job.arrival_s, prompt_tokens=request.num_prompt_tokens,
        max_tokens=request.max_tokens, session_id=job.session_id, send_s=job.send_s,
        cached_tokens=request.num_cached_tokens, first_scheduled_s=job.first_scheduled_s, finish_s=job.finish_s,
        num_preemptions=request.num_preemptions, finish_reason=job.finish_reason, token_times_s=job.token_times_s,
    )  # fmt: skip
