"""`engine bench steps`: one row for each batch composition of a grid, with real keys and values in the cache.

Contexts are built by prefilling random prompts, longer ones on top of the shorter ones' cached blocks; every step goes
through the engine's own loop. A point is run several times in a row after one run that does not count, and the repeat
of median wall time becomes its row, so that every row is a step that happened.
"""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from engine.bench.clock import Clock, WallClock
from engine.bench.grid import SKEWS, Grid
from engine.bench.interrupt import Interrupt, interruptible
from engine.bench.loop import step_timing
from engine.bench.machine import Machine
from engine.bench.meta import trace_meta
from engine.bench.warm_up import warm_up
from engine.core.batch import Batch
from engine.core.records import StepKind, StepLog, StepTiming
from engine.core.request import Request
from engine.core.sampling_params import SamplingParams
from engine.core.trace import Trace
from engine.serving.llm import LLM

Measured = tuple[Batch, StepTiming, StepKind]


@dataclass(frozen=True, slots=True)
class GridSession:
    """A grid that is ready to be measured."""

    llm: LLM
    grid: Grid
    seed: int

    def run(self, machine: Machine, on_point: Callable[[], None]) -> Trace:
        """Measure all points, or those before the user's Ctrl-C; either way the trace is complete.

        `machine` goes into the trace's `meta.json`.
        """
        meta = trace_meta(self.llm, machine, self.seed)
        run = GridRun(self.llm, self.grid, WallClock(), self.seed)
        with interruptible() as interrupt:
            run.run(interrupt, on_point)
        workload = {"kind": "grid", **asdict(self.grid), "interrupted": interrupt.requested}
        return Trace({**meta, "workload": workload}, steps=run.steps.table())


def prepare(llm: LLM, grid: Grid, seed: int) -> GridSession:
    """Check everything and warm up; raises `InputError` or `CapacityError` where a point cannot be run."""
    grid.check(llm.config)
    warm_up(llm)
    return GridSession(llm, grid, seed)


class GridRun:
    """A grid being measured; `steps` holds the points done so far."""

    def __init__(self, llm: LLM, grid: Grid, clock: Clock, seed: int = 0) -> None:
        self.steps = StepLog(llm.config.usable_blocks)
        self._llm, self._grid, self._clock = llm, grid, clock
        self._rng = np.random.default_rng(seed)
        self._prompts: list[list[int]] = []
        self._history = self._tokens(max(grid.histories))

    def run(self, interrupt: Interrupt, on_point: Callable[[], None]) -> None:
        """Measure every point, or those before an interrupt; the engine is empty afterwards."""
        for chunk, history in self._grid.prefill_points():
            if interrupt.requested:
                return
            self._keep(self._prefill_point(chunk, history), on_point)
        for chunk, pack in self._grid.pack_points():
            if interrupt.requested:
                return
            self._keep(self._pack_point(chunk, pack), on_point)
        for context, batches in self._grid.decode_levels():
            decoding = self._fill([context] * max(batches), interrupt)
            self._measure_level(decoding, batches, interrupt, on_point)
            self._abort(decoding)
        for batch, skew in itertools.product(self._grid.skewed_batches, SKEWS):
            decoding = self._fill(self._grid.skewed_contexts(batch, skew), interrupt)
            if not interrupt.requested:
                self._keep(self._decode_point(), on_point)
            self._abort(decoding)

    def _measure_level(
        self, decoding: list[Request], batches: tuple[int, ...], interrupt: Interrupt, on_point: Callable[[], None]
    ) -> None:
        """Decode and mixed points at the contexts that `decoding` have, from the largest batch down."""
        histories = self._grid.histories
        for number, batch in enumerate(batches):
            while len(decoding) > batch:
                self._llm.abort(decoding.pop())
            for place, chunk in enumerate((0, *self._grid.mixed_chunks)):
                if interrupt.requested:
                    return
                # Each history takes its turn: the mix needs no full product to be told apart.
                history = histories[(number + place) % len(histories)]
                self._keep(self._prefill_point(chunk, history) if chunk else self._decode_point(), on_point)

    def _fill(self, contexts: list[int], interrupt: Interrupt) -> list[Request]:
        """Sequences that decode at about these contexts: those that are ready first decode while others fill."""
        room = self._grid.decode_room(self._llm.config.max_num_batched_tokens)
        requests = [self._add(self._prompt(number, context), room) for number, context in enumerate(contexts)]
        filling = set(requests)
        while filling and not interrupt.requested:
            filling -= self._llm.step().tokens.keys()
        return requests

    def _prompt(self, number: int, length: int) -> list[int]:
        """The first `length` tokens of prompt `number`: a longer one starts as the shorter ones did."""
        while len(self._prompts) <= number:
            self._prompts.append([])
        prompt = self._prompts[number]
        prompt += self._tokens(max(0, length - len(prompt)))
        return prompt[:length]

    def _decode_point(self) -> list[Measured]:
        self._timed_step()
        return [self._timed_step()[0] for _ in range(self._grid.repeats)]

    def _prefill_point(self, chunk: int, history: int) -> list[Measured]:
        """Repeats of one chunk of new tokens on `history` cached ones, beside whatever decodes."""
        prompts = [[*self._history[:history], *self._tokens(chunk)] for _ in range(self._grid.repeats + 1)]
        return [self._timed_chunk(prompt) for prompt in prompts][1:]  # the first brings the history into the cache

    def _timed_chunk(self, prompt: list[int]) -> Measured:
        """The step in which a request of one token ends: the only one where its history is cached."""
        start_s = self._clock.now()
        request = self._add(prompt, 1)
        while True:
            measured, ended = self._timed_step(start_s)
            if request in ended:
                return measured
            start_s = self._clock.now()

    def _pack_point(self, chunk: int, pack: int) -> list[Measured]:
        """Repeats of `chunk` new tokens in `pack` sequences of about equal length, all prefilled in one step."""
        sizes = [chunk // pack + (number < chunk % pack) for number in range(pack)]
        return [self._timed_pack(sizes) for _ in range(self._grid.repeats + 1)][1:]

    def _timed_pack(self, sizes: list[int]) -> Measured:
        prompts = [self._tokens(size) for size in sizes]
        start_s = self._clock.now()
        for prompt in prompts:
            self._add(prompt, 1)
        return self._timed_step(start_s)[0]

    def _timed_step(self, start_s: float | None = None) -> tuple[Measured, set[Request]]:
        start_s = self._clock.now() if start_s is None else start_s
        result = self._llm.step()
        timing = step_timing(result, start_s, self._clock.now() - start_s)
        return (result.batch, timing, result.kind), {request for request, _ in result.finished}

    def _keep(self, repeats: list[Measured], on_point: Callable[[], None]) -> None:
        by_time = sorted(repeats, key=lambda measured: measured[1].wall_s)
        self.steps.add(*by_time[(len(by_time) - 1) // 2])
        on_point()

    def _add(self, prompt: list[int], max_tokens: int) -> Request:
        return self._llm.add(prompt, SamplingParams(max_tokens=max_tokens, ignore_eos=True))

    def _abort(self, requests: list[Request]) -> None:
        for request in requests:
            self._llm.abort(request)

    def _tokens(self, count: int) -> list[int]:
        tokens: list[int] = self._rng.integers(0, self._llm.model.shape.vocab_size, size=count).tolist()
        return tokens
