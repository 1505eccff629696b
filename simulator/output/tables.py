"""Results as tables on a terminal; every figure with its unit, its scope and its interval."""

from rich.table import Table

from roofline import console
from simulator.output.report import replay_section
from simulator.output.results import Capacity, LoadCurve, Plan, RunResult
from simulator.output.wording import (
    CONSTRAINT_NAMES,
    METRIC_NAMES,
    cost_rows,
    estimate_in_ms,
    figures,
    in_ms,
    interval_in_words,
    latencies_in_words,
    plan_sentence,
    replicas_in_words,
    shortfall,
)
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
    """A capacity: the rate, what it reaches, what stops it."""
    kept = capacity.kept
    _say(
        f"{replicas_in_words(capacity.replicas)} ({capacity.gpus} GPUs) serve {capacity.rate_per_s:.4g} requests/s "
        f"with {latencies_in_words(kept)}; {kept.badge} step times.",
        "bold",
    )
    _say(f"Not {capacity.missed.offered_rate_per_s:.4g} requests/s: {shortfall(capacity.missed)}.")


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
