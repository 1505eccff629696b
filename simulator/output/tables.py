"""Results as tables on a terminal; every figure with its unit, its scope and its interval."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from roofline import console
from simulator.grid import Question
from simulator.output.attribution import Attribution
from simulator.output.report import replay_section
from simulator.output.results import Capacity, LoadCurve, Plan, RunResult
from simulator.output.wording import (
    CONSTRAINT_NAMES,
    METRIC_NAMES,
    cost_rows,
    estimate_in_ms,
    figure_name,
    figures,
    in_ms,
    interval_in_words,
    latencies_in_words,
    plan_sentence,
    rate_in_words,
    replicas_in_words,
    shortfall,
)
from simulator.planning.compare import FIGURES, Comparison, Contender
from simulator.replay import Replay


def print_run(result: RunResult) -> None:
    """A run: verdict, latencies, throughput by scope."""
    _say(f"{result.verdict.capitalize()}: {result.reason}.", "green" if result.is_steady else "bold yellow")
    if not result.is_steady:
        _say("The figures below are of a transient: they say what was seen, not what the fleet does in the long run.")
    console.out.print(_latencies(result))
    console.out.print(_throughput(result))
    _say(
        f"n = {result.num_requests:,} requests after a warm-up of {result.warmup_requests:,}; intervals hold with "
        f"95 % confidence; {result.badge} step times; seed {result.seed}."
    )
    for note in result.notes:
        _say(note, "yellow")


def print_gaps(itl_s: dict[str, float]) -> None:
    """Single gaps between tokens, of the whole run."""
    shown = ", ".join(f"{name} {in_ms(value)}" for name, value in itl_s.items())
    _say(f"ITL, single gaps between tokens, warm-up included: {shown}.")


def print_attribution(found: Sequence[Attribution]) -> None:
    """What latencies consist of, all requests beside the slowest, and what would help."""
    for one in found:
        table = Table(f"mean {one.metric[:-2].upper()} by part", "all requests", f"slowest {one.num_tail:,}")
        for part in one.mean_s:
            if max(one.mean_s[part], one.tail_s[part]) > 1e-9:
                table.add_row(part, in_ms(one.mean_s[part]), in_ms(one.tail_s[part]))
        console.out.print(table)
    for one in found:
        _say(f"{one.metric[:-2].upper()} of the slowest owes most to {one.largest}: {one.knob}.")


def print_replay(replay: Replay) -> None:
    """Measured, predicted and their difference, figure by figure."""
    table = Table("", "measured", "predicted", "error")
    for column in table.columns[1:]:
        column.justify = "right"
    for page_table in replay_section(replay.as_json(), "").tables:
        for row in page_table.rows:
            table.add_row(*row)
        table.add_section()
    console.out.print(table)
    _say(f"{replay.badge} step times; latencies as the client sees them; errors are predicted / measured - 1.")
    for text in replay.assumed:
        _say(f"Assumed: {text}.", "yellow")


def print_plan(plan: Plan) -> None:
    """A plan: the sentence, then what stands behind it."""
    _say(plan_sentence(plan), "bold")
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    rows = [
        ("interval", interval_in_words(plan.interval)),
        ("binding", f"{CONSTRAINT_NAMES[plan.binding.constraint]}. {plan.binding.evidence}"),
        ("why not fewer", plan.why_not_fewer),
        *cost_rows(plan),
        *(("assumed", text) for text in plan.assumptions),
        ("check it", plan.benchmark_command),
    ]
    for name, text in rows:
        facts.add_row(name, console.escape(text))
    console.out.print(facts)
    console.out.print(_latencies(plan.chosen))
    console.out.print(_throughput(plan.chosen))


def print_capacity(capacity: Capacity) -> None:
    """A capacity: the rate with its interval, every seed's, what it reaches, what stops it."""
    kept, rate = capacity.kept, capacity.rate
    _say(
        f"{replicas_in_words(capacity.replicas)} ({capacity.gpus} GPU{'s' * (capacity.gpus != 1)}) serve "
        f"{rate_in_words(rate)} requests/s within the targets, {capacity.rate_per_gpu_s:.4g} a GPU; "
        f"{kept.badge} step times.",
        "bold",
    )
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    seeds = ", ".join(f"{found.rate_per_s:.4g} (seed {found.seed})" for found in capacity.by_seed)
    facts.add_row("seeds", f"{seeds}; each found to within {max(s.resolution for s in capacity.by_seed):.1%}")
    if capacity.with_doubt is not None:
        low, high = capacity.with_doubt
        facts.add_row("interval", console.escape(f"{low:.4g} to {high:.4g} requests/s with {capacity.doubt}"))
    else:
        facts.add_row("interval", console.escape(f"the simulation's chance alone; {capacity.doubt}"))
    facts.add_row(f"{kept.offered_rate_per_s:.4g} requests/s", latencies_in_words(kept))
    facts.add_row(
        f"{capacity.missed.offered_rate_per_s:.4g} requests/s",
        console.escape(f"missed by {shortfall(capacity.missed)}"),
    )
    console.out.print(facts)


_SWEEP_COLUMNS: dict[Question, dict[str, str]] = {
    "run": {
        "verdict": "verdict", "meets_targets": "targets kept", "p99_ttft_s": "p99 TTFT", "p99_tpot_s": "p99 TPOT",
        "output_tokens_per_gpu_s": "output tokens/s a GPU",
    },
    "plan": {
        "fleet": "fleet", "replicas_low": "replicas from", "replicas_high": "to", "binding": "binding",
        "usd_per_hour": "$ an hour",
    },
    "capacity": {
        "capacity_per_s": "requests/s", "capacity_per_s_low": "from", "capacity_per_s_high": "to",
        "capacity_per_gpu_s": "requests/s a GPU",
    },
}  # fmt: skip


def print_sweep(sweep: pd.DataFrame, varied: Sequence[str], question: Question) -> None:
    """A sweep, a line a point: what varies, and the figures that matter most; the file has all of them."""
    columns = [name for name in _SWEEP_COLUMNS[question] if name in sweep]
    table = Table(*(field.rsplit(".", 1)[-1] for field in varied), *(_SWEEP_COLUMNS[question][n] for n in columns))
    for row in sweep.to_dict("records"):
        told = [_cell(name, row[name]) for name in columns]
        if row["status"] != "answered":
            told = [console.escape(f"{row['status']}: {row['message']}")][: len(columns)]
        table.add_row(*(_cell(name, row[name]) for name in varied), *told)
    console.out.print(table)


def _cell(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_s") and name.startswith("p99"):
        return in_ms(value)
    return f"{value:.4g}" if isinstance(value, float) else console.escape(str(value))


def print_comparison(comparison: Comparison) -> None:
    """Scenarios side by side, a column each; under each figure its difference from the first's."""
    table = Table("", *(console.escape(c.scenario.name) for c in comparison.contenders))
    table.add_row("fleet", *(replicas_in_words(c.runs[0].replicas) for c in comparison.contenders))
    table.add_row("GPUs", *(str(c.runs[0].gpus) for c in comparison.contenders))
    for name in FIGURES:
        cells = [_compared(name, contender) for contender in comparison.contenders]
        if any(cells):
            table.add_row(figure_name(name, comparison.percentile), *cells)
    console.out.print(table)
    for contender in comparison.contenders:
        if not contender.is_steady:
            run = next(run for run in contender.runs if not run.is_steady)
            _say(f"{contender.scenario.name}: no steady state with seed {run.seed}, as {run.reason}.", "yellow")
    _say(
        f"Means over seeds {comparison.seeds[0]} to {comparison.seeds[-1]}, the same for each scenario; below them the "
        "difference from the first, seed by seed, with its 95 % interval; (=) is no more than chance."
    )


def _compared(name: str, contender: Contender) -> str:
    figure = contender.figures.get(name)
    if figure is None:
        return ""
    shown = (
        in_ms(figure.value) if "_s" in name and "_per_" not in name and "_gpu_" not in name else figures(figure.value)
    )
    difference = contender.differences.get(name)
    if difference is None:
        return shown
    chance = " (=)" if difference.low <= 0 <= difference.high else ""
    return f"{shown}\n{difference.value:+.1%} ({difference.low:+.1%} to {difference.high:+.1%}){chance}"


def print_curve(curve: LoadCurve) -> None:
    """A load curve, a line a point."""
    table = Table("requests/s", "verdict", "p50 TTFT", "p99 TTFT", "p50 TPOT", "p99 TPOT", "tokens/s", "attainment")
    for point in curve.points:
        ttft, tpot = point.latencies["ttft_s"], point.latencies["tpot_s"]
        shown = [in_ms(e.value) if point.is_steady else "" for e in (ttft.p50, ttft.p99, tpot.p50, tpot.p99)]
        kept = "" if point.attainment is None or not point.is_steady else f"{point.attainment.value:.1%}"
        served = f"{point.output_tokens_per_s:,.0f}"
        table.add_row(f"{point.offered_rate_per_s:.4g}", point.verdict, *shown, served, kept)
    console.out.print(table)
    best = curve.max_sustainable_rate_per_s
    told = "none of these rates" if best is None else f"{best:.4g} requests/s, the highest steady one of these"
    _say(f"{replicas_in_words(curve.replicas)} ({curve.gpus} GPUs) sustain {told}. Rates are of the fleet.")


def _latencies(result: RunResult) -> Table:
    table = Table("latency", "mean", "p50", "p90", "p99", f"p{result.percentile:g}, target", title_justify="left")
    for metric, latency in result.latencies.items():
        estimates = [estimate_in_ms(e) for e in (latency.mean, latency.p50, latency.p90, latency.p99)]
        target_s = result.targets_s.get(metric)
        verdict = "missed" if metric in result.missed else "kept"
        target = "" if target_s is None else f"{in_ms(latency.at_target.value)}, {in_ms(target_s)}: {verdict}"
        table.add_row(METRIC_NAMES[metric], *estimates, target)
    return table


def _throughput(result: RunResult) -> Table:
    table = Table("throughput and use", "a GPU", "a replica", "the fleet")
    amounts = [
        ("requests/s offered", result.offered_rate_per_s),
        ("requests/s served", result.request_rate_per_s),
        ("output tokens/s", result.output_tokens_per_s),
        ("prompt tokens/s", result.prompt_tokens_per_s),
    ]
    for name, amount in amounts:
        scopes = (amount / result.gpus, amount / result.replicas, amount)
        table.add_row(name, *(figures(value) for value in scopes))
    use = result.occupancy
    table.add_row("requests running (mean)", "", f"{use.mean_running:.3g}", f"{use.mean_running * result.replicas:.3g}")
    table.add_row("KV blocks in use (mean, peak)", "", f"{use.kv_mean:.0%}, {use.kv_peak:.0%}", "")
    table.add_row("preemptions a request", "", "", f"{use.preemptions_per_request:.3g}")
    return table


def _say(text: str, style: str = "") -> None:
    console.out.print(console.escape(text), style=style, highlight=False, soft_wrap=True)
