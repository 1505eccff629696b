"""One simulation of a scenario's fleet as it is: its steady state in figures, and the run itself as a trace."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.core.bench_result import bench_result
from engine.core.metrics import Slo
from engine.core.trace import BENCH_RESULT_FILE, Trace, check_writable, write_trace
from simulator.deployment import Deployment, resolve
from simulator.output.collector import Both
from simulator.output.recorder import TraceRecorder
from simulator.output.results import RunResult
from simulator.output.streaming import StreamingStats
from simulator.output.timeline import Timeline, TimelineObserver
from simulator.planning.criteria import is_precise
from simulator.planning.steady import Progress, steady_run
from simulator.scenario import Scenario
from simulator.scenario_file import to_mapping


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run: the figures of its steady state, and every request that ended in it, the warm-up's too."""

    result: RunResult
    trace: Trace


def run(scenario: Scenario, progress: Progress | None = None) -> Run:
    """Simulate `scenario.fleet.replicas` replicas until their steady state is known well, or is shown not to come."""
    deployment = resolve(scenario)
    recorder = TraceRecorder(deployment.engine)
    result = steady_run(deployment, scenario.fleet.replicas, is_precise, progress, recorder, token_times=True)
    return Run(result, recorder.trace(_meta(deployment, result)))


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """A run of which nothing but figures is kept: its memory does not grow with its tokens and steps.

    Inter-token latencies and the timeline are of the whole run, its warm-up too.
    """

    result: RunResult
    itl_s: dict[str, float] | None  # mean, p50, p90, p99 of single gaps; None without any
    timeline: Timeline


def overview(scenario: Scenario, progress: Progress | None = None) -> Overview:
    """`run` without the trace."""
    deployment = resolve(scenario)
    stats, times = StreamingStats(), TimelineObserver(deployment.engine.usable_blocks)
    result = steady_run(deployment, scenario.fleet.replicas, is_precise, progress, Both(stats, times))
    return Overview(result, stats.itl.summary(), times.timeline())


def write(done: Run, folder: Path) -> None:
    """Write the trace folder with its `vllm bench serve` summary, whole or not at all."""
    write_trace(folder, done.trace, texts={BENCH_RESULT_FILE: json.dumps(summary(done), indent=2) + "\n"})


def check_folder(folder: Path) -> None:
    """TraceError where `write` would not write there: better before a long run than after."""
    check_writable(folder)


def measured(done: Run) -> Trace:
    """The run without its warm-up and without what came after its figures; its steps are all there."""
    first = done.result.warmup_requests
    rows = done.trace.requests.iloc[first : first + done.result.num_requests]
    return replace(done.trace, requests=rows.reset_index(drop=True))


def summary(done: Run) -> dict[str, Any]:
    """The run as `vllm bench serve` would report it, without the warm-up; `steady_state` says what it is worth."""
    result = bench_result(measured(done), slo_of(done.trace), detailed=False)
    return result | {"steady_state": done.result.verdict, "warmup_requests": done.result.warmup_requests}


def slo_of(trace: Trace) -> Slo | None:
    """The targets of the scenario that a trace was simulated from; None where it has none."""
    scenario = trace.meta.get("scenario")
    targets = None if scenario is None else Scenario.model_validate(scenario).slo
    return targets.slo if targets is not None and targets.targets_s else None


def _meta(deployment: Deployment, result: RunResult) -> dict[str, Any]:
    scenario, client = deployment.scenario, deployment.fleet(1).client
    return {
        "simulated": True,
        "engine": {"name": "headroom-simulator"},
        "hardware": {"name": scenario.hardware.accelerator, "count": result.gpus},
        "model": {"name": deployment.shape.name, "shape": asdict(deployment.shape)},
        "weight_dtype": scenario.weight_dtype,
        "kv_dtype": scenario.kv_dtype,
        "tensor_parallel": scenario.parallelism.tensor,
        "replicas": result.replicas,
        "engine_config": deployment.engine.as_dict(),
        "client": asdict(client),
        "workload": {"request_rate": result.offered_rate_per_s, "burstiness": _finite(scenario.workload.burstiness)},
        "steady_state": {
            "verdict": result.verdict, "reason": result.reason, "warmup_requests": result.warmup_requests,
        },
        "step_time": {"badge": result.badge, "profile": scenario.step_time.profile},
        "seed": scenario.seed,
        "scenario": to_mapping(scenario),
    }  # fmt: skip


def _finite(value: float) -> float | str:
    return "inf" if value == float("inf") else value
