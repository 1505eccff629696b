"""Whole reports, each one HTML file that opens offline: which sections a run, a comparison or a sweep is shown in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from calibration.page import PageTable, Section
from engine.core.trace import Trace
from roofline import figures as arithmetic
from roofline.analytic import AnalyticStepTime
from roofline.errors import InputError
from roofline.hardware import Efficiency, accelerator
from roofline.memory import memory_plan
from roofline.step_time import BatchWork, chunk_attn_pairs
from simulator.deployment import Deployment, memory_layout, resolve
from simulator.grid import Question
from simulator.output.attribution import E2E_PARTS, TTFT_PARTS, Attribution, attribution
from simulator.output.classes import CLASSES, ClassResult, by_class
from simulator.output.figures import choice, distributions, timeline
from simulator.output.figures import sweep as sweeps
from simulator.output.report import run_section, write_report
from simulator.output.results import METRICS, RunResult
from simulator.output.timeline import timeline as over_time
from simulator.output.wording import METRIC_NAMES, estimate_in_ms, in_ms, latencies_in_words, replicas_in_words
from simulator.planning.compare import Comparison, Contender
from simulator.scenario import Scenario
from simulator.scenario_file import to_yaml

_VALUES: dict[Question, tuple[str, str]] = {  # the figure that a sweep is after, and its name
    "run": ("output_tokens_per_gpu_s", "output tokens/s a GPU"),
    "plan": ("gpus", "GPUs"),
    "capacity": ("capacity_per_gpu_s", "requests/s a GPU"),
}
PASSES_S = 2.0  # of the figure that shows single passes


@dataclass(frozen=True, slots=True, eq=False)
class SweepTable:
    """A sweep's table, the fields that vary in it, and what was asked."""

    table: pd.DataFrame
    varied: Sequence[str]
    question: Question


def write_run(path: Path, result: RunResult, trace: Trace) -> None:
    """The report of a run; `trace` holds its steady part's requests and all of its steps."""
    scenario = Scenario.model_validate(trace.meta["scenario"])
    deployment = resolve(scenario)
    summary = (
        f"{replicas_in_words(result.replicas)} ({result.gpus} {scenario.hardware.accelerator}) under "
        f"{result.offered_rate_per_s:.4g} requests/s: {latencies_in_words(result)}; {result.verdict}, {result.reason}; "
        f"{result.badge} step times; seed {result.seed}."
    )
    spread = [distributions.latency_cdf(result, metric) for metric in result.targets_s or METRICS]
    sections = [
        run_section(result, "Latency"),
        Section("Distribution of the latencies", "Warm-up cut.", figures=spread),
        *attribution_sections(trace, result.percentile),
        *class_sections(trace, scenario),
        *time_sections(trace),
        *machine_sections(deployment, result),
        *([Section("Read with care", items=result.notes)] if result.notes else []),
        Section("The scenario", "`simulator run` answers the same from this file.", code=to_yaml(scenario)),
    ]
    write_report(path, scenario.name, summary, sections)


def write_comparison(path: Path, comparison: Comparison) -> None:
    """The report of a comparison: differences with their intervals, and every scenario's file."""
    first, *others = (contender.scenario.name for contender in comparison.contenders)
    rows = [
        (
            c.scenario.name,
            replicas_in_words(c.runs[0].replicas),
            str(c.runs[0].gpus),
            c.runs[0].badge,
            _verdicts(c),
        )
        for c in comparison.contenders
    ]
    text = (
        f"Seeds {comparison.seeds[0]} to {comparison.seeds[-1]}, the same for each scenario, so that a difference is "
        "taken seed by seed. An interval across the line may be chance."
    )
    table = PageTable(rows, ("scenario", "fleet", "GPUs", "step times", "verdicts"), names=5)
    files = [Section(f"Scenario: {c.scenario.name}", code=to_yaml(c.scenario)) for c in comparison.contenders]
    sections = [Section("Differences", text, [choice.differences(comparison)], [table]), *files]
    write_report(path, f"{first} compared", f"{first} against {', '.join(others)}.", sections)


def write_sweep(path: Path, sweep: SweepTable, scenario: Scenario) -> None:
    """The report of a sweep: the Pareto front, heat map or cost where the grid has one, and every point."""
    table, varied = sweep.table, sweep.varied
    value, _ = _VALUES[sweep.question]
    shown = [*varied, *(name for name in ("status", "verdict", "meets_targets", value, "message") if name in table)]
    rows = [["" if pd.isna(cell) else _cell(cell) for cell in row] for row in table[shown].to_numpy(dtype=object)]
    figures = _sweep_figures(sweep, scenario)
    sections = [
        Section("The points", "Filled marks keep every target; hover for the whole configuration.", figures),
        Section("All of them", tables=[PageTable(rows, shown, names=len(varied))]),
        Section("The scenario that was varied", code=to_yaml(scenario)),
    ]
    answered = int((table["status"] == "answered").sum())
    told = f"{answered} of {len(table)} scenarios have an answer ({sweep.question}); varied: {', '.join(varied)}."
    write_report(path, f"{scenario.name}: sweep", told, sections)


def _sweep_figures(sweep: SweepTable, scenario: Scenario) -> list[go.Figure]:
    table, varied = sweep.table, sweep.varied
    value, title = _VALUES[sweep.question]
    found = []
    if sweep.question == "run" and "p50_tpot_s" in table:
        colour = varied[0] if len(varied) > 1 else None
        found.append(sweeps.pareto(table, varied, tpot_target_s=scenario.slo.targets_s.get("tpot_s"), colour_by=colour))
    if len(varied) == 2 and value in table:
        found.append(sweeps.heat_map(table, varied[0], varied[1], value, title))
    targets = [field for field in varied if field.startswith("slo.") and field.endswith("_ms")]
    if sweep.question == "plan" and len(varied) == 1 and targets and "usd_per_hour" in table:
        found.append(sweeps.cost_against_target(table, targets[0]))
    return found


def attribution_sections(trace: Trace, percentile: float) -> list[Section]:
    """What TTFT and E2E consist of, in the mean and in the tail, and what would make the tail shorter."""
    found = [attribution(trace, metric, percentile) for metric in ("ttft_s", "e2e_s")]
    known = [one for one in found if one is not None]
    if not known:
        return []
    items = [
        f"{METRIC_NAMES[one.metric]} of the slowest owes most to {one.largest} ({E2E_PARTS[one.largest]}): {one.knob}."
        for one in known
    ]
    figures = [distributions.latency_parts(one) for one in known]
    tables = [_parts_table(one) for one in known]
    text = "Means over requests; the parts sum to the latency."
    return [Section("Where the time goes", text, figures, tables, items)]


def _parts_table(found: Attribution) -> PageTable:
    names = TTFT_PARTS if found.metric == "ttft_s" else E2E_PARTS
    rows = [
        (name, in_ms(found.mean_s[name]), in_ms(found.tail_s[name]), told)
        for name, told in names.items()
        if found.mean_s[name] > 1e-9 or found.tail_s[name] > 1e-9
    ]
    return PageTable(
        rows, (f"part of {METRIC_NAMES[found.metric]}", "all", f"slowest {found.num_tail:,}", "what it is"), names=4
    )


def class_sections(trace: Trace, scenario: Scenario) -> list[Section]:
    """Attainment by every class that the requests differ in."""
    slo = scenario.slo.slo if scenario.slo.targets_s else None
    sections = []
    for name in CLASSES:
        if name not in trace.requests or name == "replica":
            continue
        found = by_class(trace.requests, name, slo, scenario.slo.percentile)
        if len(found) > 1:
            rows = [_class_row(one) for one in found]
            p = f"p{scenario.slo.percentile:g}"
            header = (name, "requests", "completed", f"{p} TTFT", f"{p} TPOT", "within the targets", "goodput/s")
            sections.append(Section(f"By {name.replace('_', ' ')}", tables=[PageTable(rows, header)]))
    return sections


def _class_row(one: ClassResult) -> tuple[str, ...]:
    kept = "" if one.attainment is None else f"{one.attainment.value:.2%}"
    good = "" if one.goodput_per_s is None else f"{one.goodput_per_s:.3g}"
    latencies = (estimate_in_ms(one.ttft_s), estimate_in_ms(one.tpot_s))
    return one.name, f"{one.num_requests:,}", f"{one.num_completed:,}", *latencies, kept, good


def time_sections(trace: Trace) -> list[Section]:
    """The run over time, and a few seconds of single passes from its middle."""
    if trace.steps.empty:
        return []
    line = over_time(trace.steps)
    middle_s = float(line.edges_s[len(line.edges_s) // 2])
    window = trace.steps[trace.steps["start_s"] < middle_s + PASSES_S]
    return [
        Section("Over time", "All replicas together, warm-up included.", [timeline.run_over_time(line)]),
        Section("Single passes", "Replica 0, halfway through the run.", [timeline.batch_composition(window, middle_s)]),
    ]


def machine_sections(deployment: Deployment, result: RunResult) -> list[Section]:
    """One GPU's memory, and the operators of a typical decode pass and a full prefill; none outside the catalogue."""
    scenario, engine = deployment.scenario, deployment.engine
    try:
        hardware = accelerator(scenario.hardware.accelerator, scenario.hardware.catalogue)
    except InputError:
        return []
    plan = memory_plan(
        deployment.shape, hardware, Efficiency.prior(hardware), memory_layout(scenario, deployment.shape)
    )
    name = f"{deployment.shape.name} on {hardware.name}, TP{scenario.parallelism.tensor}"
    sections = [Section("Memory of one GPU", figures=[arithmetic.memory_stack({name: plan.stack()})])]
    model = deployment.step_time
    if isinstance(model, AnalyticStepTime):
        seqs = max(1, round(result.occupancy.mean_running))
        context = max(1, round(result.occupancy.kv_mean * engine.usable_blocks * engine.block_size / seqs))
        tokens = engine.max_num_batched_tokens
        decode = BatchWork(0, 0, 0, 0, seqs, seqs, seqs * context, context)
        prefill = BatchWork(1, tokens, 0, chunk_attn_pairs(tokens, 0), 0, 0, 0, 0)
        told = f"{seqs} requests that decode at {context:,} tokens each, as on average in this run."
        sections += [
            Section("A typical decode pass", told, [arithmetic.roofline_plot(model, model.breakdown(decode))]),
            Section(
                "A full prefill pass", f"{tokens:,} tokens of one prompt.",
                [arithmetic.roofline_plot(model, model.breakdown(prefill))],
            ),
        ]  # fmt: skip
    return sections


def _verdicts(contender: Contender) -> str:
    return ", ".join(dict.fromkeys(run.verdict for run in contender.runs))


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
