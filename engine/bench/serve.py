"""`engine bench serve`: send a workload to the engine in real time and record every step and request."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from engine.bench.clock import WallClock
from engine.bench.interrupt import Interrupt, interruptible
from engine.bench.loop import Live, ServingRun
from engine.bench.machine import Machine
from engine.bench.meta import trace_meta
from engine.bench.prompts import prompt_token_ids
from engine.bench.warm_up import warm_up
from engine.core.records import StepLog, requests_table
from engine.core.trace import Trace
from engine.core.workload import Workload, check_fits
from engine.serving.llm import LLM
from roofline.errors import InputError

OnStep = Callable[[Live, float], None]


@dataclass(frozen=True, slots=True)
class Served:
    """What a run left: its trace, and how many requests an interrupt kept from being sent."""

    trace: Trace
    num_unsent: int
    interrupted: bool


def prepare(
    llm: LLM, workload: Workload, seed: int, max_concurrency: int | None = None, temperature: float = 0.0
) -> "Session":
    """Check everything and warm up; `Session.run` then starts the clock.

    `temperature` of the sampling: what it draws does not matter here, but drawing takes its time.

    Every answer is as long as the workload says (end tokens are ignored). Raises `InputError` or `CapacityError` for a
    request that could never be served, before anything runs.
    """
    if max_concurrency is not None and max_concurrency < 1:
        raise InputError(f"max concurrency is {max_concurrency}; it must be at least 1.")
    workload = exact_lengths(workload)
    workload = replace(workload, description={**workload.description, "temperature": temperature})
    check_fits(workload, llm.config)
    vocabulary = llm.model.shape.vocab_size
    prompts = [prompt_token_ids(workload, index, vocabulary, seed).tolist() for index in range(len(workload))]
    warm_up(llm)
    run = ServingRun(llm, workload, prompts, StepLog(llm.config.usable_blocks), max_concurrency, temperature)
    return Session(llm, run, workload, seed, max_concurrency)


@dataclass(frozen=True, slots=True)
class Session:
    """A run that is ready to start."""

    llm: LLM
    loop: ServingRun
    workload: Workload
    seed: int
    max_concurrency: int | None

    def run(self, machine: Machine, on_step: OnStep) -> Served:
        """Serve to the end, or to the user's Ctrl-C; either way the trace is complete and consistent.

        `machine` goes into the trace's `meta.json`.
        """
        meta = trace_meta(self.llm, machine, self.seed, {"max_concurrency": self.max_concurrency})
        gc.collect()
        gc.freeze()  # model and prompts are not walked by collections in the middle of a step
        try:
            with interruptible() as interrupt:
                self.loop.run(WallClock(), interrupt, on_step)
        finally:
            gc.unfreeze()
        return self._served(meta, interrupt)

    def _served(self, meta: dict[str, Any], interrupt: Interrupt) -> Served:
        unsent = self.loop.num_unsent
        description = {**self.workload.description, "num_unsent": unsent, "interrupted": interrupt.requested}
        if self.workload.block_keys is not None:
            description["key_block_size"] = self.workload.key_block_size
        requests = self._with_workload_columns(requests_table(self.loop.records))
        trace = Trace({**meta, "workload": description}, self.loop.steps.table(), requests)
        return Served(trace, unsent, interrupt.requested)

    def _with_workload_columns(self, requests: pd.DataFrame) -> pd.DataFrame:
        """What an exact replay needs besides lengths: priorities where they decide, prefixes where they are shared."""
        sent = len(requests)
        if self.llm.config.policy == "priority":
            requests["priority"] = self.workload.requests["priority"].to_numpy()[:sent]
        if self.workload.block_keys is not None:
            requests["block_keys"] = pd.Series(self.workload.block_keys[:sent], dtype=object)
        return requests


def exact_lengths(workload: Workload) -> Workload:
    """The workload with `max_tokens` = the output length: what the engine is told."""
    return replace(workload, requests=workload.requests.assign(max_tokens=workload.requests["output_tokens"]))
