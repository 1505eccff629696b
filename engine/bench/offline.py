"""`engine bench throughput | latency`: everything at once, or one batch after the other.

Throughput is what an engine yields when it never waits for a request; latency is what one batch of equal requests sees
that has the engine to itself.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from engine.bench.clock import WallClock
from engine.bench.interrupt import interruptible
from engine.bench.loop import ServingRun
from engine.bench.machine import Machine
from engine.bench.meta import trace_meta
from engine.bench.prompts import prompt_token_ids
from engine.bench.warm_up import warm_up
from engine.core.metrics import FloatArray, completed, e2e_s, makespan_s, tpot_s, ttft_s
from engine.core.records import RequestRecord, StepLog, requests_table
from engine.core.trace import Trace
from engine.core.workload import Workload, check_fits, requests_of
from engine.serving.llm import LLM
from roofline.errors import InputError

PERCENTILES = (50, 90, 99)


def mixed_256(count: int = 256, longest: int = 1024) -> Workload:
    """The field's small offline workload: 256 requests of 100 to 1024 tokens in and out, from `random.seed(0)`.

    It has 142,827 prompt and 133,966 output tokens; nano-vllm's and other small engines' figures are of it. Its lengths
    follow a draw of each prompt token, which is made here and thrown away: the tokens themselves do not matter. Fewer
    or shorter requests make a smaller workload of the same kind. Raises `InputError` for none, or for empty ones.
    """
    for name, value in (("num_requests", count), ("longest", longest)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1.")
    draws = random.Random(0)
    shortest = min(100, longest)
    prompts, outputs = [], []
    for _ in range(count):
        prompts.append(draws.randint(shortest, longest))
        for _ in range(prompts[-1]):
            draws.randint(0, 10_000)
    for _ in range(count):
        outputs.append(draws.randint(shortest, longest))
    requests = requests_of(np.zeros(count), np.array(prompts, np.int64), np.array(outputs, np.int64))
    return Workload(requests, description={"kind": "mixed-256", "num_requests": count, "longest": longest})


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens and seconds of an offline run: from the first sending to the last token."""

    input_tokens: int
    output_tokens: int
    seconds: float

    @classmethod
    def of(cls, requests: pd.DataFrame) -> "Throughput":
        """Of the completed requests."""
        done = requests[completed(requests)]
        return cls(int(done["prompt_tokens"].sum()), int(done["output_tokens"].sum()), makespan_s(requests))

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the rates; None where nothing was completed."""
        tokens = {"input": self.input_tokens, "output": self.output_tokens}
        tokens["total"] = sum(tokens.values())
        rates = {f"{name}_tokens_per_s": _rate(count, self.seconds) for name, count in tokens.items()}
        counts = {f"{name}_tokens": count for name, count in tokens.items()}
        return {**counts, "seconds": self.seconds if self.seconds > 0 else None, **rates}


@dataclass(frozen=True, slots=True)
class LatencyPlan:
    """Batches of equal requests, `iterations` of them one after the other."""

    batch: int = 1
    input_len: int = 128
    output_len: int = 32
    iterations: int = 5

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    def workload(self, iteration: int, start_s: float) -> Workload:
        """The batch of one iteration, sent at `start_s`."""
        count = self.batch
        requests = requests_of(np.full(count, start_s), np.full(count, self.input_len), np.full(count, self.output_len))
        return Workload(requests, description={"kind": "latency", "iteration": iteration})

    def description(self) -> dict[str, Any]:
        """For `meta.json`."""
        return {"kind": "latency", **{name: getattr(self, name) for name in self.__slots__}}


def measure_latency(llm: LLM, plan: LatencyPlan, machine: Machine, seed: int, on_done: Callable[[], None]) -> Trace:
    """Run the plan after a warm-up; `on_done` is told of each iteration. Ctrl-C keeps the iterations before it.

    Prompts differ from one iteration to the next, so that nothing is found in the prefix cache. Raises `InputError` or
    `CapacityError` for a batch that cannot be served.
    """
    check_fits(plan.workload(0, 0.0), llm.config)
    if plan.batch > llm.config.max_num_seqs:
        raise InputError(f"a batch of {plan.batch} exceeds max_num_seqs {llm.config.max_num_seqs}; raise it.")
    warm_up(llm)
    steps, clock = StepLog(llm.config.usable_blocks), WallClock()
    records: list[RequestRecord] = []
    vocabulary = llm.model.shape.vocab_size
    with interruptible() as interrupt:
        for iteration in range(plan.iterations):
            drawn = plan.workload(iteration, 0.0)
            prompts = [
                prompt_token_ids(drawn, index, vocabulary, seed + 1 + iteration).tolist() for index in range(plan.batch)
            ]
            run = ServingRun(llm, plan.workload(iteration, clock.now()), prompts, steps)
            run.run(clock, interrupt, lambda live, end: None)
            if interrupt.requested:
                break
            records += [_numbered(record, len(records) + place) for place, record in enumerate(run.records)]
            on_done()
    description = {**plan.description(), "interrupted": interrupt.requested}
    meta = {**trace_meta(llm, machine, seed, {"max_concurrency": plan.batch}), "workload": description}
    return Trace(meta, steps.table(), requests_table(records))


def latencies(requests: pd.DataFrame) -> dict[str, dict[str, float] | None]:
    """Mean, percentiles, least and most of each latency in seconds, pooled over the requests; None if undefined."""
    return {metric.__name__: _percentiles(metric(requests)) for metric in (ttft_s, tpot_s, e2e_s)}


def _percentiles(values_s: FloatArray) -> dict[str, float] | None:
    defined = values_s[~np.isnan(values_s)]
    if not defined.size:
        return None
    points = zip(PERCENTILES, np.percentile(defined, PERCENTILES).tolist(), strict=True)
    ends = {"mean": float(defined.mean()), "min": float(defined.min()), "max": float(defined.max())}
    return {**ends, **{f"p{percent}": value for percent, value in points}}


def _numbered(record: RequestRecord, number: int) -> RequestRecord:
    return replace(record, request_id=str(number))


def _rate(tokens: int, seconds: float) -> float | None:
    return tokens / seconds if seconds > 0 else None
