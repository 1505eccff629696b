"""The stages of a campaign, each from its plan to traces and figures; one process runs one of them.

`python -m engine.bench.stages PRESET STAGE FOLDER SEED` is what a campaign starts. SIGINT says that the time is up:
what was measured until then stays, and the stage is reported as partial.
"""

import gc
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from engine.bench import serve, steps
from engine.bench.attainment import Shares, shares
from engine.bench.figures import capacity_per_s, exposed_host_s, step_figures, utilisation_figures
from engine.bench.kernel_cases import cases
from engine.bench.kernel_sizes import SUITES
from engine.bench.kernels import Row, figures, kernels_table, measure_kernels
from engine.bench.machine import Machine, measure_machine
from engine.bench.meta import served_model, weight_dtype
from engine.bench.offline import Throughput, mixed_256
from engine.bench.presets import KernelsPlan, OfflinePlan, Plan, RivalPlan, ServePlan, StepsPlan, preset_named
from engine.bench.stage_report import DONE, FAILED, PARTIAL, SKIPPED, StageReport
from engine.bench.transformers_rival import load_rival
from engine.core.arrivals import ArrivalProcess
from engine.core.lengths import parse_lengths
from engine.core.metrics import summarize
from engine.core.trace import Trace
from engine.core.workload import SyntheticWorkload, Workload
from engine.serving.llm import LLM
from roofline import console
from roofline.errors import HeadroomError, ModelError
from roofline.model_source import load_model_shape


class TimeUpError(Exception):
    """The stage was told to stop; what it measured is written."""


def run_stage(plan: Plan, report: StageReport, seed: int) -> None:
    """Run one stage and say how it ended; whatever fails is a sentence in its report, the traceback in its log."""
    try:
        _STAGES[type(plan)](plan, report, seed)
    except (TimeUpError, KeyboardInterrupt):
        report.end(PARTIAL, "Its time was up: what is here was measured before.")
    except Exception as error:  # the boundary of a stage: the campaign goes on whatever it was
        traceback.print_exc()
        sentence = str(error) if isinstance(error, HeadroomError) else f"{type(error).__name__}: {error}"
        lines = sentence.strip().splitlines()
        report.end(SKIPPED if isinstance(error, ModelError) else FAILED, lines[0])
    else:
        report.end(DONE)


def _kernels(plan: KernelsPlan, report: StageReport, seed: int) -> None:
    device = torch.device(plan.device)
    machine = measure_machine([plan.dtype], device)
    report.add_figures({"hardware": machine.as_dict()})
    report.say(f"{machine.name}: {machine_sentence(machine)}.")
    chosen, rows = cases(SUITES[plan.suite]), list[Row]()

    def keep(found: list[Row]) -> None:
        rows.extend(found)
        report.add_table("kernels", [row.as_dict() for row in rows])
        report.add_figures(figures(chosen, rows))

    measure_kernels(chosen, device, machine, seed, keep)
    console.out.print(kernels_table(rows))
    wrong = sorted({f"{row.operation} {row.size}" for row in rows if row.failure and row.implementation == "engine"})
    if wrong:
        raise HeadroomError(f"the engine's own kernels failed at {', '.join(wrong)}; kernels.json says how.")


def _offline(plan: OfflinePlan, report: StageReport, seed: int) -> None:
    workload = mixed_256(plan.count, plan.longest)
    llm = plan.engine.load(plan.settings)
    machine = _machine(llm)
    trace = _serve(llm, workload, machine, seed, ("mixed", plan.temperature), report)
    found = Throughput.of(trace.requests).as_dict()
    report.add_figures({"throughput_mixed_256": found["output_tokens_per_s"], "throughput": found})
    report.say(f"{plan.count} requests at once: {found['output_tokens_per_s']:,.0f} output tokens/s.")
    if plan.pressure_blocks is None:
        return
    del llm
    _release()
    llm = plan.engine.load({**plan.settings, "num_blocks": plan.pressure_blocks})
    _under_pressure(llm, workload, machine, seed, report)


def _steps(plan: StepsPlan, report: StageReport, seed: int) -> None:
    llm = plan.engine.load(plan.settings)
    machine = _machine(llm)
    trace = steps.prepare(llm, plan.grid, seed).run(machine, lambda *_: None)
    report.add_trace("steps", trace)
    found = step_figures(trace.steps, plan.label)
    share = shares(trace.steps, served_model(llm), machine)
    report.add_figures({**found, **_used(f"steps_{plan.label}", share)})
    report.say(f"{len(trace.steps)} of {plan.grid.num_points} batch compositions measured.")
    if trace.meta["workload"]["interrupted"]:
        raise TimeUpError


def _serve_loads(plan: ServePlan, report: StageReport, seed: int) -> None:
    llm = plan.engine.load(plan.settings)
    machine = _machine(llm)
    burst = _workload(plan, float("inf"), plan.burst).generate(seed)
    trace = _serve(llm, burst, machine, seed, ("burst", 0.0), report)
    capacity = capacity_per_s(trace.requests)
    report.add_figures({"capacity_requests_per_s": capacity})
    report.say(f"Capacity {capacity:.2f} requests/s, from {plan.burst} requests at once.")
    for place, load in enumerate(plan.loads):
        count = max(2, round(load * capacity * plan.load_s))
        workload = _workload(plan, load * capacity, count).generate(seed + 1 + place)
        _serve(llm, workload, machine, seed, (f"load-{load:g}", 0.0), report)
    if plan.pressure_blocks is None:
        return
    del llm
    _release()
    llm = plan.engine.load({**plan.settings, "num_blocks": plan.pressure_blocks})
    _under_pressure(llm, burst, machine, seed, report)


def _rival(plan: RivalPlan, report: StageReport, seed: int) -> None:
    rival = load_rival(load_model_shape(plan.model), plan.device, plan.dtype)
    workload = mixed_256(plan.count, plan.longest)
    found = rival.serve(workload, seed, plan.temperature, plan.num_blocks).as_dict()
    report.add_figures({"transformers": {"version": rival.version, **found}})
    report.say(f"transformers {rival.version}: {found['output_tokens_per_s']:,.0f} output tokens/s.")


_STAGES: Mapping[type, Callable[[Any, StageReport, int], None]] = {
    KernelsPlan: _kernels,
    OfflinePlan: _offline,
    StepsPlan: _steps,
    ServePlan: _serve_loads,
    RivalPlan: _rival,
}


def _workload(plan: ServePlan, rate: float, count: int) -> SyntheticWorkload:
    lengths = parse_lengths(plan.input_len), parse_lengths(plan.output_len)
    return SyntheticWorkload(ArrivalProcess(rate, 1.0), *lengths, count)


def _serve(
    llm: LLM, workload: Workload, machine: Machine, seed: int, how: tuple[str, float], report: StageReport
) -> Trace:
    """Serve a workload; `how` is the trace's name and the temperature. Raises `TimeUpError` after a partial trace."""
    name, temperature = how
    served = serve.prepare(llm, workload, seed, temperature=temperature).run(machine, lambda *_: None)
    report.add_trace(name, served.trace)
    share = shares(served.trace.steps, served_model(llm), machine)
    exposed = exposed_host_s(served.trace.steps)
    report.add_figures({name: {**summarize(served.trace), "exposed_host_s": exposed}, **_used(name, share)})
    if served.interrupted:
        raise TimeUpError
    return served.trace


def _under_pressure(llm: LLM, workload: Workload, machine: Machine, seed: int, report: StageReport) -> None:
    trace = _serve(llm, workload, machine, seed, ("kv-pressure", 0.0), report)
    preempted = int(trace.requests["num_preemptions"].sum())
    report.say(f"{preempted} preemptions with {llm.config.usable_blocks:,} KV blocks.")


def _machine(llm: LLM) -> Machine:
    return measure_machine([weight_dtype(llm)], llm.model.weights.device)


def _used(name: str, share: Shares | None) -> dict[str, Any]:
    return {} if share is None else {f"utilisation_{name}": utilisation_figures(share)}


def _release() -> None:
    """Give the engine's memory back, captured graphs and cache included, before the next one asks for its own."""
    gc.unfreeze()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def machine_sentence(machine: Machine) -> str:
    """The measured ceilings in words."""
    rates = ", ".join(f"{rate / 1e12:,.4g} TFLOP/s {dtype}" for dtype, rate in machine.gemm_flop_per_s.items())
    copy, read = machine.copy_bytes_per_s / 1e9, machine.read_bytes_per_s / 1e9
    return f"copies {copy:,.1f} GB/s (read and written), reads {read:,.1f} GB/s, multiplies {rates}"


def main() -> None:
    """Run the stage that the command line names."""
    preset, stage, folder, seed = sys.argv[1:]
    # A shell's background job begins with SIGINT ignored, and the time would be up without a word.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_stage(preset_named(preset).stage(stage).plan, StageReport(Path(folder)), int(seed))


if __name__ == "__main__":
    main()
