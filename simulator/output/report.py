"""The report of the main job, as sections of one page: what was measured, how well it is modelled, what follows.

Each function turns one result into sections; `write_report` puts any of them into a file that opens offline.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calibration.page import Page, PageTable, Section, write_page
from simulator.output.figures.distributions import latency_cdf
from simulator.output.figures.load import latency_against_load, throughput_against_load
from simulator.output.results import LoadCurve, Plan, RunResult
from simulator.output.wording import (
    CONSTRAINT_NAMES,
    METRIC_NAMES,
    cost_rows,
    estimate_in_ms,
    figures,
    in_ms,
    interval_in_words,
    plan_sentence,
    replicas_in_words,
)
from simulator.scenario_file import to_yaml

_SUMMARY_NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E"}
_TOTALS = {
    "request_throughput": "requests/s", "output_throughput": "output tokens/s", "makespan_s": "duration (s)",
    "num_requests": "requests", "num_steps": "forward passes", "num_preemptions": "preemptions",
}  # fmt: skip


def write_report(path: Path, title: str, summary: str, sections: Sequence[Section]) -> None:
    """Write one HTML file, whole or not at all; `summary` is its message in a sentence."""
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_page(path, Page(title, f"Headroom, {written}", summary, sections))


def measured_section(summary: Mapping[str, Any], text: str) -> Section:
    """What an engine did: `engine.core.metrics.summarize` of its trace; `text` says on what."""
    return Section("Measured", text, tables=[_latency_table({"": summary}), _totals_table({"": summary})])


def replay_section(replay: Mapping[str, Any], text: str) -> Section:
    """Measured beside predicted: the document of `simulator replay --json`."""
    columns = {"measured": replay["measured"], "predicted": replay["predicted"]}
    return Section(
        "Predicted against measured, request by request",
        text,
        tables=[_latency_table(columns, with_error=True), _totals_table(columns, with_error=True)],
    )


def plan_sections(plan: Plan) -> list[Section]:
    """A plan: the answer, its margin, its reason, its price, and the file that asks the question again."""
    rows = [
        ("fleet", f"{plan.scope} of {plan.scenario.hardware.accelerator}"),
        ("interval", interval_in_words(plan.interval)),
        ("binding constraint", f"{CONSTRAINT_NAMES[plan.binding.constraint]}. {plan.binding.evidence}"),
        ("why not fewer", plan.why_not_fewer),
        *cost_rows(plan),
        ("step times", plan.chosen.badge),
        ("check it", plan.benchmark_command),
    ]
    distributions = [latency_cdf(plan.chosen, metric) for metric in plan.chosen.targets_s]
    return [
        Section("The plan", plan_sentence(plan), tables=[PageTable(rows, names=2)]),
        run_section(plan.chosen, "Latency of the planned fleet"),
        Section("Distribution of the latencies", "Of the planned fleet, warm-up cut.", figures=distributions),
        Section("What is assumed", items=plan.assumptions),
        Section("The scenario", "`simulator plan` answers the same from this file.", code=to_yaml(plan.scenario)),
    ]


def run_section(result: RunResult, heading: str) -> Section:
    """A run's latencies with their intervals, and whether they are those of a steady state."""
    rows = [
        (METRIC_NAMES[m], *(estimate_in_ms(e) for e in (x.mean, x.p50, x.p90, x.p99)), _target(result, m))
        for m, x in result.latencies.items()
    ]
    worth = f"{result.verdict.capitalize()}: {result.reason}. n = {result.num_requests:,}; 95 % intervals in brackets."
    return Section(heading, worth, tables=[PageTable(rows, ("", "mean", "p50", "p90", "p99", "target"))])


def curve_section(curve: LoadCurve) -> Section:
    """Latency and throughput against offered load."""
    best = curve.max_sustainable_rate_per_s
    found = "no rate tried is steady" if best is None else f"{best:.4g} requests/s is the highest steady rate tried"
    return Section(
        "Latency against load",
        f"{replicas_in_words(curve.replicas)}: {found}. Crosses are loads without a steady state.",
        [latency_against_load(curve, "ttft_s"), latency_against_load(curve, "tpot_s"), throughput_against_load(curve)],
    )


def _target(result: RunResult, metric: Any) -> str:
    target_s = result.targets_s.get(metric)
    if target_s is None:
        return ""
    return f"p{result.percentile:g} below {in_ms(target_s)}: {'missed' if metric in result.missed else 'kept'}"


def _latency_table(columns: Mapping[str, Mapping[str, Any]], with_error: bool = False) -> PageTable:
    """A row a metric and statistic, a column a summary; errors relative to the first."""
    rows = []
    for metric, name in _SUMMARY_NAMES.items():
        for statistic in ("mean", "p50", "p90", "p99"):
            values = [(summary.get(metric) or {}).get(statistic) for summary in columns.values()]
            if any(value is not None for value in values):
                shown = ["" if value is None else in_ms(value) for value in values]
                rows.append((f"{statistic} {name}", *shown, *_error(values, with_error)))
    return PageTable(rows, ("latency", *columns, *(("error",) if with_error else ())))


def _totals_table(columns: Mapping[str, Mapping[str, Any]], with_error: bool = False) -> PageTable:
    rows = []
    for key, name in _TOTALS.items():
        values = [summary.get(key) for summary in columns.values()]
        shown = ["" if value is None else figures(value) for value in values]
        rows.append((name, *shown, *_error(values, with_error)))
    return PageTable(rows, ("", *columns, *(("error",) if with_error else ())))


def _error(values: Sequence[float | None], wanted: bool) -> tuple[str, ...]:
    if not wanted:
        return ()
    measured, predicted = values[0], values[1]
    return (f"{predicted / measured - 1:+.1%}",) if measured and predicted is not None else ("",)
