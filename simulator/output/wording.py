"""How figures are written for people: milliseconds, dollars, verdicts and constraints in words."""

import math

from simulator.output.results import Constraint, Estimate, Metric, Money, Plan, ReplicaInterval, RunResult

METRIC_NAMES: dict[Metric, str] = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
CONSTRAINT_NAMES: dict[Constraint, str] = {
    "kv_memory": "KV memory",
    "sequence_limit": "the limit max_num_seqs",
    "compute": "compute",
    "memory_bandwidth": "memory bandwidth",
    "overhead": "the fixed cost of a forward pass",
    "link": "the links between GPUs",
    "queueing": "queueing under the latency target",
}


def in_ms(seconds: float) -> str:
    """Three figures, in milliseconds below a second."""
    if not math.isfinite(seconds):
        return "unknown" if math.isnan(seconds) else "no bound"
    scale, unit = _unit(seconds)
    return f"{figures(seconds * scale)} {unit}"


def estimate_in_ms(estimate: Estimate) -> str:
    """As in `120 ms (110 to 135)`."""
    if not math.isfinite(estimate.value):
        return in_ms(estimate.value)
    scale, _ = _unit(estimate.value)
    low, high = max(estimate.low, 0.0), estimate.high
    ends = (figures(end * scale) if math.isfinite(end) else "no bound" for end in (low, high))
    return f"{in_ms(estimate.value)} ({' to '.join(ends)})"


_FIGURE_NAMES = {
    "attainment": "share within the targets", "goodput_per_s": "requests/s within the targets",
    "output_tokens_per_gpu_s": "output tokens/s a GPU", "usd_per_million_output_tokens": "$ per million output tokens",
}  # fmt: skip


def figure_name(column: str, percentile: float) -> str:
    """A compared figure's name for people: `p99 TTFT` for percentile_ttft_s."""
    statistic, _, metric = column.partition("_")
    for name, shown in METRIC_NAMES.items():
        if metric == name:
            return f"{f'p{percentile:g}' if statistic == 'percentile' else statistic} {shown}"
    return _FIGURE_NAMES[column]


def rate_in_words(rate: Estimate) -> str:
    """As in `41.2 (40.8 to 41.6)`; without the ends where one seed tells nothing of chance."""
    if not math.isfinite(rate.high):
        return f"{rate.value:.4g} (one seed, no interval)"
    return f"{rate.value:.4g} ({rate.low:.4g} to {rate.high:.4g})"


def figures(amount: float) -> str:
    """Three figures, or all of those before the point."""
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def _unit(seconds: float) -> tuple[float, str]:
    return (1.0, "s") if seconds >= 1 else (1000.0, "ms")


def dollars(amount: float) -> str:
    """Dollars with cents below a hundred."""
    return f"${amount:,.0f}" if amount >= 100 else f"${amount:,.2f}"


def money(value: Money) -> str:
    """As in `$8.00 (5.16 to 24.58)`; one figure where all are the same."""
    if value.low == value.high:
        return dollars(value.typical)
    return f"{dollars(value.typical)} ({dollars(value.low)[1:]} to {dollars(value.high)[1:]})"


def replicas_in_words(count: int) -> str:
    """As in `3 replicas`."""
    return f"{count} replica{'s' * (count != 1)}"


def shortfall(result: RunResult) -> str:
    """Why a fleet is not accepted, in one clause; a fleet that is accepted has no shortfall."""
    name = replicas_in_words(result.replicas)
    if result.verdict == "unstable":
        return f"{name}: no steady state at this load, {result.reason}"
    if result.is_steady:
        return f"{name}: {_in_words(result, result.missed)}"
    clearly = tuple(m for m in result.missed if result.latencies[m].at_target.low > result.targets_s[m])
    if clearly:
        return f"{name}: {_in_words(result, clearly)}, even before a steady state"
    return f"{name}: no steady state shown within {result.num_requests:,} requests, as {result.reason}"


def _in_words(result: RunResult, missed: tuple[Metric, ...]) -> str:
    return ", ".join(
        f"p{result.percentile:g} {METRIC_NAMES[metric]} is {estimate_in_ms(result.latencies[metric].at_target)}, "
        f"target {in_ms(result.targets_s[metric])}"
        for metric in missed
    )


def latencies_in_words(result: RunResult) -> str:
    """As in `p99 TTFT 120 ms (target 500 ms) and p99 TPOT 20 ms (target 50 ms)`."""
    return " and ".join(
        f"p{result.percentile:g} {METRIC_NAMES[metric]} {in_ms(latency.at_target.value)}"
        + (f" (target {in_ms(result.targets_s[metric])})" if metric in result.targets_s else "")
        for metric, latency in result.asked.items()
    )


def plan_sentence(plan: Plan) -> str:
    """The answer in one sentence: how many, for what, how well, how sure, how much."""
    interval, chosen, cost = plan.interval, plan.chosen, plan.cost
    if interval.low == interval.high == plan.replicas:
        margin = "no other number is likely"
    else:
        margin = (
            f"likely {interval.low} to {interval.high if interval.high is not None else 'more than allowed'} replicas"
        )
    price = "no price known" if cost is None else f"{dollars(cost.per_hour.typical)}/h"
    return (
        f"{plan.scope} of {plan.scenario.hardware.accelerator} serve {chosen.offered_rate_per_s:.4g} requests/s of "
        f"{plan.scenario.model} with {latencies_in_words(chosen)}; {margin}; {price}; {chosen.badge} step times."
    )


def interval_in_words(interval: ReplicaInterval) -> str:
    """As in `2 to 3 replicas: ` and what the interval includes."""
    high = "more than the limit" if interval.high is None else interval.high
    return f"{interval.low} to {high} replicas: {interval.includes}"


def cost_rows(plan: Plan) -> list[tuple[str, str]]:
    """What the fleet costs, a line a measure; which prices it rests on."""
    cost = plan.cost
    if cost is None:
        return [("cost", "no price is known for this accelerator; give prices in the scenario")]
    return [
        ("cost of the fleet", f"{money(cost.per_hour)} an hour, {money(cost.per_month)} a month of 730 hours"),
        ("", f"{money(cost.per_million_output_tokens)} per million output tokens at this load"),
        ("", f"{money(cost.per_million_tokens)} per million tokens, prompt and output"),
        ("price", f"{dollars(cost.per_gpu_hour.typical)} a GPU hour; {cost.source}"),
    ]
