"""A stand-in for the engine: the real scheduler, no model, and steps that last as long as a formula says."""

import itertools

from engine.bench.interrupt import Interrupt
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.scheduler import Scheduler
from engine.serving.results import Completion, StepResult, StepTimings


class FakeClock:
    """Time that passes only where someone lets it."""

    def __init__(self) -> None:
        self.time_s = 0.0

    def now(self) -> float:
        return self.time_s

    def wait_until(self, time_s: float, interrupt: Interrupt) -> None:
        self.time_s = max(self.time_s, time_s)


class FakeEngine:
    """Answers every request at once with a token a step; a step takes 0.1 s and 0.01 s a token."""

    def __init__(self, config: EngineConfig, clock: FakeClock) -> None:
        self.scheduler = Scheduler(config)
        self.batches = []
        self.aborted = []
        self._clock = clock
        self._left: dict[Request, int] = {}
        self._decoding: dict[Request, None] = {}
        self._names = map(str, itertools.count())

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, prompt_ids, params, request_id=None, arrival_s=0.0, priority=0) -> Request:
        request = Request(request_id or next(self._names), len(prompt_ids), params.max_tokens, arrival_s, priority)
        self.scheduler.add(request)
        self._left[request] = params.max_tokens
        return request

    def abort(self, request: Request) -> Completion:
        self.scheduler.abort(request)
        self.aborted.append(request)
        return Completion(request, (), "", "abort")

    def step(self) -> StepResult:
        batch = self.scheduler.schedule()
        assert not batch.is_empty, "the loop stepped an engine that had nothing to do"
        self.batches.append(batch)
        for request in batch.left:
            self._decoding.pop(request)
        self._decoding |= dict.fromkeys(batch.joined)
        tokens = dict.fromkeys([*self._decoding, *(chunk.request for chunk in batch.chunks if chunk.samples)], 0)
        for request in tokens:
            self._left[request] -= 1
        ended = [request for request in tokens if not self._left[request]]
        self.scheduler.complete(batch, ended)
        self._clock.time_s += 0.1 + 0.01 * batch.work.num_tokens
        completions = tuple(Completion(request, (), "", "length") for request in ended)
        return StepResult(batch, StepTimings(0.0, 0.0, 0.1, 0.0), tokens, completions)
