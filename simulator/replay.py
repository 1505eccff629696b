"""A measured trace once more, under virtual time: the same arrivals and lengths, step times from a profile.

What comes out stands beside what was measured, which is the test a calibration has to pass before its answers count.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from calibration.fitted import FittedStepTime
from calibration.profile import Badge, check_compatible, unstated
from engine.core.config import EngineConfig
from engine.core.metrics import summarize
from engine.core.trace import Trace
from engine.core.trace_meta import client_link, engine_settings
from engine.core.workload import Workload, check_fits
from engine.core.workload_files import workload_of
from roofline.errors import InputError
from roofline.step_time import StepTimeModel
from simulator.fleet.cluster import FleetSpec, RunOptions, simulate
from simulator.output.recorder import TraceRecorder

Summary = dict[str, Any]
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
# vLLM's settings where a trace does not tell its own (those of a card below 70 GB)
DEFAULT_SEQS, DEFAULT_TOKENS = 256, 2048


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Measured and predicted figures (the M of docs/formats.md), their relative errors, and what had to be assumed."""

    measured: Summary
    predicted: Summary
    badge: Badge
    trace: Trace  # the simulated run
    assumed: tuple[str, ...] = ()

    @property
    def error(self) -> Summary:
        """predicted / measured - 1 for each figure both have; None elsewhere."""
        return relative_error(self.predicted, self.measured)

    def as_json(self) -> dict[str, Any]:
        """The document `simulator replay --json` prints."""
        return {
            "measured": self.measured, "predicted": self.predicted, "error": self.error,
            "provenance": self.badge, "assumed": list(self.assumed),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """`max_concurrency` overrides the trace's client; `transfer` allows a profile of other hardware or model."""

    max_concurrency: int | None = None
    transfer: bool = False
    progress: Callable[[int], None] | None = None


def replay(trace: Trace, profile: FittedStepTime, options: ReplayOptions | None = None) -> Replay:
    """Serve the trace's requests again with the profile's step times.

    Raises ProfileError where the profile is of something else and no transfer was asked for, TraceError or InputError
    where the trace does not say enough or a request could not be served.
    """
    options = options or ReplayOptions()
    badge = check_compatible(profile, trace.meta, options.transfer)
    simulated, assumed = run_again(trace, profile, options)
    if trace.meta.get("simulated"):
        assumed += ("what stands as measured is itself a simulation",)
    unknown = unstated(profile, trace.meta)
    if unknown:
        assumed += (f"the profile's {', '.join(unknown)} also hold for the trace, which does not say",)
    return Replay(summarize(trace), summarize(simulated), badge, simulated, assumed)


def run_again(
    trace: Trace, step_time: StepTimeModel, options: ReplayOptions, fast_forward: bool = True
) -> tuple[Trace, tuple[str, ...]]:
    """The trace's requests served under `step_time`, as a trace, and what had to be assumed about the engine."""
    workload = workload_of(trace)
    engine, assumed = engine_of(trace, workload)
    check_fits(workload, engine)
    if options.max_concurrency is not None and options.max_concurrency < 1:
        raise InputError(f"max concurrency is {options.max_concurrency}; it must be at least 1.")
    client = client_link(trace)
    client = replace(client, max_concurrency=options.max_concurrency or client.max_concurrency)
    recorder = TraceRecorder(engine)
    run = RunOptions(fast_forward=fast_forward, record_token_times=True, progress=options.progress)
    simulate(FleetSpec(engine, client=client), step_time, workload, recorder, run)
    return recorder.trace({**trace.meta, "engine_config": engine.as_dict()}), assumed


def engine_of(trace: Trace, workload: Workload) -> tuple[EngineConfig, tuple[str, ...]]:
    """The engine's settings as far as the trace tells them; the rest as vLLM would set it, each named."""
    settings = engine_settings(trace)
    table = workload.requests
    longest = int((table["prompt_tokens"] + table["max_tokens"]).max())
    seqs = settings.get("max_num_seqs", DEFAULT_SEQS)
    defaults: dict[str, Any] = {
        "block_size": 16,
        "max_num_seqs": seqs,
        "max_num_batched_tokens": max(DEFAULT_TOKENS, seqs),
        "max_model_len": longest,
        "enable_prefix_caching": workload.block_keys is not None,
    }
    block_size = settings.get("block_size", defaults["block_size"])
    defaults["num_blocks"] = 1 + seqs * -(-longest // block_size)
    missing = [name for name in defaults if name not in settings]
    told = {"num_blocks": f"num_blocks {defaults['num_blocks']} (cache never short: preemptions cannot show)"}
    assumed = tuple(told.get(name, f"{name} {defaults[name]}") for name in missing)
    return EngineConfig(**(defaults | settings)), assumed


def relative_error(predicted: Summary, measured: Summary) -> Summary:
    """predicted / measured - 1, figure by figure; None where either is unknown or nothing was measured."""
    result: Summary = {}
    for name, value in measured.items():
        other = predicted.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            result[name] = relative_error(other, value)
        else:
            result[name] = other / value - 1 if value and other is not None else None
    return result
