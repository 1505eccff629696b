"""One engine under virtual time: the shared scheduler, and a StepTimeModel in place of a device.

A replica acts only at step boundaries where something changes. Between two changes the same requests decode, so it
asks the scheduler how many such steps are ahead, gets all their times in one call, and sleeps until the last of them
ends. An arrival that could change a decision wakes it earlier: at the first boundary not before the arrival, exactly
where an engine that steps one by one would have seen it. Boundaries are running sums in either case, so no timestamp
depends on whether steps were jumped.

With asynchronous scheduling `_next` is decided when `_current` begins, before its results.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import accumulate, count

from simpy.events import Event

from engine.core.batch import Batch
from engine.core.block_pool import BlockPool
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.scheduler import Scheduler
from roofline.step_time import StepTimeModel
from simulator.fleet.clock import BOUNDARY, VirtualClock
from simulator.fleet.job import Job
from simulator.fleet.scaled import ScaledStepTime
from simulator.output.observer import Observer, StepOccupancy, StepRun

MAX_JUMP = 4096  # steps in one jump: bounds the lists, not the result
VECTOR_STEPS = 8  # from here on one call for all steps is faster than one a step


class Replica:
    """Takes jobs by `submit`; calls `on_done(job)` when one has its last token, `on_lost(job)` when it dies first."""

    # Attributes in slots: every step reads dozens, and a plain instance with so many of them is slower.
    __slots__ = (
        "_alarm", "_cancelled", "_clock", "_config", "_current", "_ends", "_ends_s", "_in_flight", "_jobs", "_late",
        "_lost", "_next", "_observer", "_own_step_time", "_priority", "_start_s", "_starved", "_step_time", "_tie",
        "_walls_s", "busy_s", "emptied", "fast_forward", "num_outstanding", "number", "on_done", "on_lost",
        "outstanding_tokens", "scheduler", "token_times", "up_s",
    )  # fmt: skip

    def __init__(
        self, clock: VirtualClock, number: int, config: EngineConfig, step_time: StepTimeModel, observer: Observer
    ) -> None:
        self.number = number
        self.busy_s = self.up_s = 0.0  # with a step under way; paid for
        self.on_done: Callable[[Job], None] = lambda job: None
        self.on_lost: Callable[[Job], None] = lambda job: None
        self.emptied: Event | None = None  # happens once no job is left
        self.fast_forward = True
        self.token_times: list[float] | None = None  # end of each decode step so far; set to [] to stamp every token
        self._clock = clock
        self._priority = BOUNDARY + number
        self._config = config
        self._step_time = self._own_step_time = step_time
        self._observer = observer
        self._tie = count()
        self._in_flight = False  # a step is under way while the next is decided
        self._start_s = 0.0
        self._be_new()

    def _be_new(self) -> None:
        """Nothing to do, nothing cached."""
        config = self._config
        self.scheduler = Scheduler(config, None if config.enable_prefix_caching else BlockPool(config))
        self.num_outstanding = 0  # submitted and not finished
        self.outstanding_tokens = 0  # of their prompts
        self._jobs: dict[Request, Job] = {}
        self._ends: list[tuple[int, int, Job]] = []  # heap of (decode step of the last token, tie, job)
        self._alarm: Event | None = None
        self._current: Batch | None = None
        self._next: Batch | None = None
        self._late: list[int] = []  # arrivals during the run under way: the step after which each is seen
        self._starved: list[Job] = []  # left the cohort without ending
        self._lost: dict[int, int] = {}  # decode step -> members whose token of it will be dropped
        self._cancelled: list[Job] = []  # to be dropped at the next boundary
        self._walls_s: list[float] = []
        self._ends_s: list[float] = []
        if self.token_times is not None:
            self.token_times = []

    def submit(self, job: Job) -> None:
        """Take a job at the current time."""
        job.replica, job.reach_s = self.number, self._clock.now
        self._jobs[job.request] = job
        self.num_outstanding += 1
        self.outstanding_tokens += job.request.num_prompt_tokens
        self.scheduler.add(job.request)
        if self._alarm is None:
            self._wake_at(self._clock.now, self._on_idle_end)
        elif len(self._ends_s) > 1:
            seen_at = self._next_boundary()
            self._late.append(seen_at)
            if self._matters():
                self._cut_run(seen_at + 1)

    @property
    def kv_use(self) -> float:
        """The share of the KV blocks that requests own, as of the step under way."""
        blocks, used = self.scheduler.config.usable_blocks, self.scheduler.blocks.num_used
        if len(self._ends_s) > 1 and self._clock.phase != self._priority:  # the scheduler stands at the run's begin
            used += self.scheduler.cohort.num_growing(self._next_boundary())
        return used / blocks

    def cancel(self, job: Job) -> None:
        """The client has left: from the next boundary on the job's place and blocks are free; then `on_done(job)`."""
        if job.request in self._jobs:
            self._cancelled.append(job)
            self._cut_run(self._next_boundary() + 1)

    def kill(self) -> None:
        """Die now: the step under way is never over, and every job is lost. Starts empty when jobs come again."""
        now_s, over = self._clock.now, bisect_left(self._ends_s, self._clock.now)
        if over:
            self._ends_s, self._walls_s = self._ends_s[:over], self._walls_s[:over]
            self._end_run()
        if self._current is not None:
            self.busy_s += now_s - (self._ends_s[-1] if over else self._start_s)
        step = self._decode_step()
        jobs = list(self._jobs.values())
        for job in jobs:
            self._leave_cohort(job, step)
        self._be_new()
        for job in jobs:
            self.on_lost(job)
        self._tell_if_empty()

    def slow_down(self, factor: float) -> None:
        """Let passes from the next boundary on take `factor` times as long as the model says; 1: as it says."""
        self._step_time = self._own_step_time if factor == 1 else ScaledStepTime(self._own_step_time, factor)
        self._cut_run(self._next_boundary() + 1)

    # --- boundaries ---

    def _wake_at(self, time_s: float, action: Callable[[Event], None]) -> None:
        self._alarm = self._clock.call_at(time_s, self._priority, action)

    def _on_idle_end(self, alarm: Event) -> None:
        if alarm is self._alarm:
            if self._cancelled:
                self._drop_cancelled()
            self._dispatch(self._clock.now)

    def _on_boundary(self, alarm: Event) -> None:
        """The steps under way are over: their tokens exist, and the next step begins."""
        if alarm is not self._alarm:
            return  # the run was cut shorter
        end_s = self._ends_s[-1]
        self._end_run()
        if self._cancelled:
            self._drop_cancelled()
        self._dispatch(end_s)

    def _end_run(self) -> None:
        assert self._current is not None
        last = batch = self._current
        end_s, jumped = self._ends_s[-1], len(self._walls_s) - 1
        self._observer.on_steps(self.number, StepRun(batch, self._start_s, self._walls_s, self._occupancy))
        if jumped:
            in_flight = self.scheduler.fast_forward(jumped)
            last = in_flight[0]
            if self._next:
                seen = self._next.num_waiting + self._num_late(jumped + 1)
                self._next = in_flight[1]._replace(num_waiting=seen)
        self.busy_s += end_s - self._start_s
        self._complete(batch, last, end_s)

    def _dispatch(self, now_s: float) -> None:
        """Begin the step decided ahead, or decide one; then look how many are like it."""
        self._in_flight = False
        batch = self._next or self._decide(now_s)
        if batch is None:
            self._alarm = self._current = self._next = None
            self._ends_s = []
            return
        self._in_flight = True
        for request in batch.admitted:
            job = self._jobs.get(request)  # gone if it ended before the step decided ahead began
            if job is not None and job.first_scheduled_s != job.first_scheduled_s:  # NaN: not scheduled before
                job.first_scheduled_s = now_s
        self._next = self._decide(now_s) if self.scheduler.config.async_scheduling else None
        extra = self._steps_alike(batch) if self.fast_forward else 0
        self._walls_s = self._seconds_of(batch, extra + 1)
        if extra:
            self._ends_s = list(accumulate(self._walls_s, initial=now_s))[1:]  # a running sum, as stepping would make
        else:
            self._ends_s = [now_s + self._walls_s[0]]
        self._current, self._start_s, self._late = batch, now_s, []
        self._wake_at(self._ends_s[-1], self._on_boundary)

    def _decide(self, now_s: float) -> Batch | None:
        in_flight, step = self._in_flight, self.scheduler.cohort.steps
        batch = self.scheduler.schedule()
        for request in batch.preempted:
            self._note_preempted(self._jobs[request], now_s, step, in_flight)
        for request in batch.left:
            job = self._jobs.get(request)
            if job is not None and job.last_step > step and request.cohort is None:
                self._starved.append(job)  # a token short of budget: its times so far are settled once known
                job.last_step = -1
        if not in_flight:
            self._settle_starved(now_s, step)
        if batch.is_empty:
            return None
        steps = self.scheduler.cohort.steps
        for request in batch.joined:
            job = self._jobs[request]
            job.joined_step = steps - 1
            job.last_step = request.anchor + request.num_prompt_tokens + job.output_tokens - 1
            if job.last_step >= steps:  # else its last token is in flight, and this step is wasted on it
                heappush(self._ends, (job.last_step, next(self._tie), job))
        return batch

    def _seconds_of(self, batch: Batch, steps: int) -> list[float]:
        """Wall times of `steps` steps like `batch`."""
        if steps == 1:
            return [self._step_time.seconds(batch.work)]
        if steps >= VECTOR_STEPS:
            walls_s: list[float] = self._step_time.decode_run_seconds(batch.work, steps).tolist()
            return walls_s
        later = (batch.work.after_decode_steps(i) for i in range(1, steps))
        return [self._step_time.seconds(work) for work in (batch.work, *later)]

    def _steps_alike(self, batch: Batch) -> int:
        """Steps after `batch` that differ from it only in growing contexts, none of them after a job's last token."""
        if batch.chunks or (self._next and not self._continues(batch, self._next)):
            return 0
        while self._ends and self._ends[0][2].last_step != self._ends[0][0]:
            heappop(self._ends)  # finished or preempted since
        if not self._ends:
            return 0
        return self.scheduler.steady_steps(min(MAX_JUMP, self._ends[0][0] - self._decode_step()))

    def _occupancy(self) -> StepOccupancy:
        """What is held in each of the steps under way."""
        batch, steps = self._current, len(self._walls_s)
        assert batch is not None
        if steps == 1:
            return StepOccupancy([batch.kv_blocks_used], [batch.num_waiting])
        decided = [b.kv_blocks_used for b in (batch, self._next) if b is not None]
        grown = (len(self.scheduler.cohort.growing(offset)) for offset in range(steps - len(decided)))
        used = [*decided[:-1], *accumulate(grown, initial=decided[-1])][:steps]
        waiting = (self._next or batch).num_waiting
        seen = [batch.num_waiting, *(waiting + self._num_late(step) for step in range(1, steps))]
        return StepOccupancy(used, seen)

    def _num_late(self, step: int) -> int:
        """Arrivals during the run under way that its step `step` saw waiting when it was decided."""
        return bisect_right(self._late, step - (2 if self._next else 1))

    def _continues(self, batch: Batch, following: Batch) -> bool:
        alike = following.work == batch.work.after_decode_steps(1)
        return alike and not following.chunks and following.num_running == batch.num_running

    def _decode_step(self) -> int:
        """The cohort's clock as of the step under way."""
        return self.scheduler.cohort.steps - (self._next is not None)

    # --- arrivals during a run ---

    def _matters(self) -> bool:
        """False if a new arrival cannot be admitted before the run under way ends."""
        scheduler = self.scheduler
        if scheduler.num_running >= scheduler.config.max_num_seqs:
            return False
        return scheduler.num_waiting == 1 or scheduler.config.policy != "fcfs"

    def _next_boundary(self) -> int:
        """The step of the run under way whose end comes next; one that ends just now may be over already."""
        find = bisect_left if self._clock.phase < self._priority else bisect_right
        return find(self._ends_s, self._clock.now)

    def _cut_run(self, steps: int) -> None:
        """End the run under way after `steps` steps."""
        if steps < len(self._ends_s):
            self._ends_s = self._ends_s[:steps]
            self._walls_s = self._walls_s[:steps]
            self._wake_at(self._ends_s[-1], self._on_boundary)

    # --- tokens ---

    def _complete(self, batch: Batch, last: Batch, end_s: float) -> None:
        """Stamp the tokens of the steps just over, `batch` to `last`, and end the jobs that have theirs."""
        step = self._decode_step()
        if self.token_times is not None:
            self.token_times.extend(self._ends_s)
        if batch.work.num_decode_seqs:
            self._note_gaps(batch, step)
        self._settle_starved(end_s, step)
        ended = self._stamp_sampled(batch, end_s) if batch.chunks else []
        while self._ends and self._ends[0][0] <= step:
            last_step, _, job = heappop(self._ends)
            if job.last_step == last_step:
                job.last_step = -1  # a job preempted and back at the same step has two entries
                self._leave_cohort(job, step)
                ended.append(job)
        for job in ended:
            if self._next is not None and job.request.cohort is not None:
                self._lose_token(job, step + 1)  # its end was learned too late for the step already decided
            job.last_step = job.joined_step = -1
        self.scheduler.complete(last, [job.request for job in ended])
        for job in ended:
            if job.finish_reason is None:  # else its client has left already
                job.finish_s = end_s
            self._forget(job)

    def _stamp_sampled(self, batch: Batch, end_s: float) -> list[Job]:
        """Stamp the tokens that prefill chunks have yielded; returns the jobs that end with them."""
        ended, void = [], self.scheduler.voided(batch)
        for chunk in batch.chunks:
            if chunk.samples and chunk.request not in void:
                job = self._jobs[chunk.request]
                if job.first_token_s != job.first_token_s:  # NaN: the first token, not a recomputed request's next
                    job.first_token_s = end_s
                else:
                    self._observer.on_gaps((end_s - job.last_token_s,), 1)
                job.last_token_s = end_s
                if self.token_times is not None:
                    job.token_times_s.append(end_s)
                if chunk.start + chunk.num_tokens + 1 - chunk.request.num_prompt_tokens == job.output_tokens:
                    ended.append(job)
        return ended

    def _note_gaps(self, batch: Batch, step: int) -> None:
        """Tell the gaps between tokens that the decode steps just over have closed; `step` is the last of them."""
        gaps_s, members = self._walls_s, batch.work.num_decode_seqs
        lost = self._lost.pop(step - len(gaps_s) + 1, 0) if self._lost else 0
        if not (batch.joined or lost):
            self._observer.on_gaps(gaps_s, members)
            return
        steady = members - len(batch.joined) - lost
        if steady:
            self._observer.on_gaps(gaps_s[:1], steady)
        for request in batch.joined:
            job = self._jobs.get(request)
            if job is not None and job.joined_step >= 0:
                self._observer.on_gaps((self._ends_s[0] - job.last_token_s,), 1)
        if len(gaps_s) > 1:
            self._observer.on_gaps(gaps_s[1:], members)

    def _leave_cohort(self, job: Job, step: int) -> None:
        """Settle the token times of a job whose last decode step over is `step`."""
        if self.token_times is not None and job.joined_step >= 0:
            job.token_times_s.extend(self.token_times[job.joined_step : step])

    def _note_preempted(self, job: Job, now_s: float, step: int, in_flight: bool) -> None:
        """A decoding job goes back to the queue; `step` is the last step decided before."""
        if job.last_step < 0:
            return
        over = step - in_flight
        if job.joined_step < over:
            job.last_token_s = now_s
            self._leave_cohort(job, over)
        if in_flight:
            self._lose_token(job, step)
        job.last_step = job.joined_step = -1

    def _settle_starved(self, end_s: float, step: int) -> None:
        """Decode step `step`, the last that the starved took part in, ended at `end_s`."""
        for job in self._starved:
            job.last_token_s = end_s
            self._leave_cohort(job, step)
            job.joined_step = -1
        self._starved = []

    def _lose_token(self, job: Job, step: int) -> None:
        """The token that decode step `step` computes for `job` will be dropped."""
        if 0 <= job.joined_step < step - 1:
            self._lost[step] = self._lost.get(step, 0) + 1

    def _forget(self, job: Job) -> None:
        del self._jobs[job.request]
        self.num_outstanding -= 1
        self.outstanding_tokens -= job.request.num_prompt_tokens
        self.on_done(job)
        if self.emptied is not None:
            self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if self.emptied is not None and not self.num_outstanding:
            self.emptied.succeed()
            self.emptied = None

    def _drop_cancelled(self) -> None:
        """Take out the jobs whose clients have left, unless they have just ended; the steps under way are over."""
        step = self._decode_step()
        for job in self._cancelled:
            request = job.request
            if request not in self._jobs:
                continue
            self._leave_cohort(job, step)
            if self._next is not None and request.cohort is not None:
                self._lose_token(job, step + 1)
            self.scheduler.abort(request)
            job.last_step = job.joined_step = -1
            self._forget(job)
        self._cancelled = []
