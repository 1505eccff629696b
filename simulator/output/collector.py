"""What a steady-state question needs of a run: latencies in order of arrival, and how the replicas are used.

It ends the run itself, in SimPy's own way, as soon as whoever asks has seen enough. Memory is a few numbers a request.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from simpy.core import StopSimulation

from engine.core.config import EngineConfig
from roofline.step_time import BatchWork, FloatArray
from simulator.fleet.job import FINISHED, Job
from simulator.output.observer import Observer, StepRun
from simulator.output.results import METRICS, Metric, Occupancy

PROBE_EVERY = 16  # of the runs of steps, one in so many is asked what it waits for
KV_FULL = 0.95  # of the blocks: with more in use, a typical prompt finds no room

# What a pass waits for (None: the model does not say), and whether its time rests on measurements or needs none.
Probe = Callable[[BatchWork], tuple[str | None, bool]]


class Collector:
    """Observes `simulate`; `enough(collector)` is asked whenever `checkpoints` many requests have ended."""

    def __init__(
        self, arrival_s: FloatArray, engine: EngineConfig, probe: Probe, enough: Callable[["Collector"], bool],
        checkpoints: Sequence[int],
    ) -> None:  # fmt: skip
        self.arrival_s = arrival_s
        self.finish_s = np.full(len(arrival_s), math.nan)
        self.in_service_s = np.full(len(arrival_s), math.nan)  # from its first pass to its end
        self.latencies_s: dict[Metric, FloatArray] = {m: np.full(len(arrival_s), math.nan) for m in METRICS}
        self.tokens: NDArray[np.int64] = np.zeros((len(arrival_s), 2), dtype=np.int64)  # prompt, output
        self.now_s = 0.0
        self.unfinished: NDArray[np.bool_] = np.zeros(len(arrival_s), dtype=bool)  # ended without their answer
        self.num_finished = 0  # ended, in whatever way
        self.usage = Usage(engine, probe)
        self._enough = enough
        self._checkpoints = iter(checkpoints)
        self._next = next(self._checkpoints, math.inf)

    def on_steps(self, replica: int, run: StepRun) -> None:
        """Add to the use of the replicas."""
        self.usage.add(run)

    def on_gaps(self, gaps_s: Sequence[float], count: int) -> None:
        """Single gaps are not asked for."""

    def on_arrival(self, job: Job) -> None:
        """Note when a request came that nobody could know of before; until then its arrival is at infinity."""
        self.arrival_s[job.index] = job.arrival_s

    def on_finish(self, job: Job) -> None:
        """Note the latencies of one request; at a checkpoint, or once nothing arrives any more, see whether to end."""
        index, self.now_s = job.index, job.finish_s
        self.finish_s[index] = job.finish_s
        if job.finish_reason == FINISHED:
            self._note_latencies(index, job)
        else:
            self.unfinished[index] = True
        self.usage.preemptions += job.request.num_preemptions
        self.num_finished += 1
        if self.now_s > self.arrival_s[-1]:
            raise StopSimulation(None)  # from here on the fleet only empties: a transient
        if self.num_finished >= self._next:
            self._next = next(self._checkpoints, math.inf)
            if self._enough(self):
                raise StopSimulation(None)

    def _note_latencies(self, index: int, job: Job) -> None:
        sent_s = job.arrival_s if math.isnan(job.send_s) else job.send_s
        self.in_service_s[index] = job.finish_s - job.first_scheduled_s
        self.latencies_s["ttft_s"][index] = job.first_token_s - sent_s
        self.latencies_s["e2e_s"][index] = job.finish_s - sent_s
        if job.output_tokens > 1:
            self.latencies_s["tpot_s"][index] = (job.finish_s - job.first_token_s) / (job.output_tokens - 1)
        self.tokens[index] = job.request.num_prompt_tokens, job.output_tokens

    @property
    def num_arrived(self) -> int:
        """Requests that have arrived by now."""
        return int(np.searchsorted(self.arrival_s, self.now_s, side="right"))

    @property
    def num_complete(self) -> int:
        """Requests before the first, in order of arrival, that has not ended: among these no latency is missing."""
        missing = np.flatnonzero(np.isnan(self.finish_s))
        return int(missing[0]) if len(missing) else len(self.finish_s)

    def in_system(self, times_s: FloatArray) -> FloatArray:
        """Requests that have arrived and not ended at each time up to now."""
        ends_s = np.sort(self.finish_s[~np.isnan(self.finish_s)])
        arrived = np.searchsorted(self.arrival_s, times_s, side="right")
        return (arrived - np.searchsorted(ends_s, times_s, side="right")).astype(np.float64)


class Usage:
    """Sums over the time that replicas are busy; the start-up is in them, and small beside the rest."""

    def __init__(self, engine: EngineConfig, probe: Probe) -> None:
        self.preemptions = 0
        self._engine, self._probe = engine, probe
        self._busy_s = self._kv_s = self._running_s = 0.0
        self._waiting_s = self._waiting_kv_s = self._waiting_slot_s = 0.0
        self._probed_s = self._beyond_s = 0.0
        self._kv_peak = self._calls = 0
        self._bound_s: dict[str, float] = {}

    def add(self, run: StepRun) -> None:
        """Some steps alike; the mean of their first and last KV use stands for all of them."""
        batch, (used, waiting) = run.batch, run.occupancy()
        last = used[-1]
        wall_s = sum(run.walls_s)
        self._busy_s += wall_s
        self._kv_s += wall_s * (used[0] + last) / 2
        self._running_s += wall_s * batch.num_running
        self._kv_peak = max(self._kv_peak, last)
        if waiting[-1]:  # who waits joins in the course of a run and does not leave
            waiting_s = wall_s * (1 - waiting.count(0) / len(waiting))
            self._waiting_s += waiting_s
            if batch.num_running >= self._engine.max_num_seqs:
                self._waiting_slot_s += waiting_s
            elif last >= KV_FULL * self._engine.usable_blocks:
                self._waiting_kv_s += waiting_s
        if self._calls % PROBE_EVERY == 0:
            bound, in_range = self._probe(batch.work)
            self._probed_s += wall_s
            self._beyond_s += 0.0 if in_range else wall_s
            if bound is not None:
                self._bound_s[bound] = self._bound_s.get(bound, 0.0) + wall_s
        self._calls += 1

    def occupancy(self, replicas: int, elapsed_s: float, num_requests: int) -> Occupancy:
        """The averages over a run of `elapsed_s` and so many requests on so many replicas."""
        busy_s, blocks = max(self._busy_s, 1e-300), self._engine.usable_blocks
        divided_s = sum(self._bound_s.values())
        return Occupancy(
            busy=min(1.0, self._busy_s / (replicas * elapsed_s)) if elapsed_s > 0 else 0.0,
            kv_mean=self._kv_s / busy_s / blocks,
            kv_peak=self._kv_peak / blocks,
            sequences_mean=self._running_s / busy_s / self._engine.max_num_seqs,
            waiting=self._waiting_s / busy_s,
            waiting_for_kv=self._waiting_kv_s / busy_s,
            waiting_for_slot=self._waiting_slot_s / busy_s,
            mean_running=self._running_s / busy_s,
            preemptions_per_request=self.preemptions / max(num_requests, 1),
            bound={name: part_s / divided_s for name, part_s in sorted(self._bound_s.items())},
            extrapolated=self._beyond_s / max(self._probed_s, 1e-300),
        )


@dataclass(frozen=True, slots=True)
class Both:
    """Two observers of one run; the second may end it."""

    first: Observer
    second: Observer

    def on_steps(self, replica: int, run: StepRun) -> None:
        """Tell both."""
        self.first.on_steps(replica, run)
        self.second.on_steps(replica, run)

    def on_gaps(self, gaps_s: Sequence[float], count: int) -> None:
        """Tell both."""
        self.first.on_gaps(gaps_s, count)
        self.second.on_gaps(gaps_s, count)

    def on_finish(self, job: Job) -> None:
        """Tell both."""
        self.first.on_finish(job)
        self.second.on_finish(job)
