"""The serving loop in real time: requests arrive by the clock, one engine step follows the other.

The rule of time, which the simulator shares: a step starts when the one before ended if there was work then, else when
the next request arrives; it sees every request sent until its start; it ends when the whole iteration is done, and all
its tokens carry that end. So busy steps touch each other, and the recorded step times replay to the same timestamps.

A cap on requests in flight holds later ones back at the client: such a request is sent at the end of the step in which
another one finished.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.bench.clock import Clock
from engine.bench.interrupt import Interrupt
from engine.core.records import RequestRecord, StepLog, StepTiming
from engine.core.request import Request
from engine.core.sampling_params import SamplingParams
from engine.core.workload import Workload
from engine.serving.llm import Completion, StepResult


class Engine(Protocol):
    """What the loop needs of `engine.serving.llm.LLM`; its `add` raises before anything is queued."""

    @property
    def has_work(self) -> bool:
        """True while a step would do something."""
        ...

    def add(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        request_id: str | None = None,
        arrival_s: float = 0.0,
        priority: int = 0,
    ) -> Request:
        """Queue a request."""
        ...

    def step(self) -> StepResult:
        """Run one batch."""
        ...

    def abort(self, request: Request) -> Completion | None:
        """End a request early."""
        ...


@dataclass(slots=True)
class Live:
    """Running figures for the eye; the exact ones come from the trace."""

    num_finished: int = 0
    num_running: int = 0
    num_waiting: int = 0
    num_first_tokens: int = 0
    ttft_sum_s: float = 0.0
    num_gaps: int = 0
    gap_sum_s: float = 0.0


def step_timing(result: StepResult, start_s: float, wall_s: float) -> StepTiming:
    """The timing of a step that took `wall_s` in all."""
    t = result.timings
    return StepTiming(start_s, wall_s, t.device_s, t.schedule_s, t.prepare_s, t.sample_s)


class ServingRun:
    """One workload being served; `records` and `steps` are complete after every step."""

    def __init__(
        self,
        engine: Engine,
        workload: Workload,
        prompts: Sequence[Sequence[int]],
        steps: StepLog,
        max_concurrency: int | None = None,
        temperature: float = 0.0,
    ) -> None:
        self.steps = steps
        self.records: list[RequestRecord] = []  # of the requests sent, in their order
        self.live = Live()
        self._engine = engine
        self._prompts = prompts
        self._arrival_s: list[float] = workload.requests["arrival_s"].tolist()
        self._output_tokens: list[int] = workload.requests["output_tokens"].tolist()
        self._sessions: list[str | None] = workload.requests["session_id"].tolist()
        self._priorities: list[int] = workload.requests["priority"].tolist()
        self._temperature = temperature
        self._slots = np.inf if max_concurrency is None else max_concurrency
        self._in_flight: dict[Request, RequestRecord] = {}

    @property
    def num_unsent(self) -> int:
        """Requests that are yet to arrive or held back by the cap."""
        return len(self._arrival_s) - len(self.records)

    def run(self, clock: Clock, interrupt: Interrupt, on_step: Callable[[Live, float], None]) -> float:
        """Serve until everything has ended or the user interrupts; returns the last end, in seconds of the clock.

        `on_step` is told the running figures and the time after each step. What is unfinished at an interrupt ends as
        aborted.
        """
        end = 0.0
        while not interrupt.requested and (self.num_unsent or self._engine.has_work):
            start = end
            if not self._engine.has_work:
                start = max(end, self._arrival_s[len(self.records)])
                clock.wait_until(start, interrupt)
                if interrupt.requested:
                    break
                self._send_until(start)
            result = self._engine.step()
            wall = clock.now() - start
            end = start + wall  # not the clock's own reading: the recorded times must add up to the last bit
            self._note(result, step_timing(result, start, wall), end)
            on_step(self.live, end)
        self._abort_unfinished(end)
        return end

    def _note(self, result: StepResult, timing: StepTiming, end: float) -> None:
        """Write down what a step did, and send what may be sent at its end."""
        self.steps.add(result.batch, timing, result.kind)
        for request in result.batch.admitted:
            record = self._in_flight.get(request)
            if record is not None and np.isnan(record.first_scheduled_s):
                record.first_scheduled_s = timing.start_s
        for request in result.tokens:
            self._note_token(self._in_flight[request], end)
        self._send_until(end)
        for request, reason in result.finished:
            self._close(request, reason, end)
        self._send_until(end, held_back=True)
        self.live.num_running, self.live.num_waiting = result.batch.num_running, result.batch.num_waiting

    def _note_token(self, record: RequestRecord, end: float) -> None:
        live, times = self.live, record.token_times_s
        if times:
            live.num_gaps += 1
            live.gap_sum_s += end - times[-1]
        else:
            live.num_first_tokens += 1
            live.ttft_sum_s += end - (record.arrival_s if np.isnan(record.send_s) else record.send_s)
        times.append(end)

    def _send_until(self, time_s: float, held_back: bool = False) -> None:
        """Send what has arrived by `time_s` while the cap allows; `held_back` says that it waited for a place."""
        while self.num_unsent and len(self._in_flight) < self._slots:
            index = len(self.records)
            arrival = self._arrival_s[index]
            if arrival > time_s:
                break
            self._send(index, time_s if held_back and arrival < time_s else None)

    def _send(self, index: int, send_s: float | None) -> None:
        arrival, prompt, output = self._arrival_s[index], self._prompts[index], self._output_tokens[index]
        record = RequestRecord(str(index), arrival, len(prompt), output, self._sessions[index])
        if send_s is not None:
            record.send_s = send_s
        request = self._engine.add(
            prompt,
            SamplingParams(max_tokens=output, ignore_eos=True, temperature=self._temperature),
            request_id=record.request_id,
            arrival_s=arrival if send_s is None else send_s,
            priority=self._priorities[index],
        )
        self._in_flight[request] = record
        self.records.append(record)

    def _close(self, request: Request, reason: str, end: float) -> None:
        record = self._in_flight.pop(request)
        record.finish_s, record.finish_reason = end, reason
        record.cached_tokens, record.num_preemptions = request.num_cached_tokens, request.num_preemptions
        self.live.num_finished += 1

    def _abort_unfinished(self, end: float) -> None:
        for request, record in list(self._in_flight.items()):
            self._engine.abort(request)
            self._close(request, "abort", max(end, record.arrival_s))
