"""Results as flat rows of a table: one figure a column, the unit in its name; for sweeps, comparisons and CSV.

A figure with an interval has three columns: `p99_ttft_s`, `p99_ttft_s_low`, `p99_ttft_s_high`. What has no value or
bound is missing (None), never infinite or NaN.
"""

import math

from simulator.output.results import Capacity, Cost, Estimate, Money, Plan, RunResult

Row = dict[str, str | float | int | bool | None]


def run_row(result: RunResult, cost: Cost | None = None) -> Row:
    """A run's figures of its steady state; `verdict` says if it is one."""
    use = result.occupancy
    return {
        "verdict": result.verdict, "reason": result.reason, "meets_targets": result.meets_targets,
        "replicas": result.replicas, "gpus": result.gpus, "offered_rate_per_s": result.offered_rate_per_s,
        "num_requests": result.num_requests, "warmup_requests": result.warmup_requests,
        "duration_s": result.duration_s, **_latencies(result),
        **({} if result.attainment is None else _estimate("attainment", result.attainment)),
        "goodput_per_s": result.goodput_per_s, "request_rate_per_s": result.request_rate_per_s,
        "output_tokens_per_s": result.output_tokens_per_s, "prompt_tokens_per_s": result.prompt_tokens_per_s,
        "output_tokens_per_gpu_s": result.output_tokens_per_s / result.gpus,
        "busy": use.busy, "kv_mean": use.kv_mean, "kv_peak": use.kv_peak, "mean_running": use.mean_running,
        "waiting": use.waiting, "preemptions_per_request": use.preemptions_per_request,
        "extrapolated": use.extrapolated, "badge": result.badge, "seed": result.seed,
        **({} if cost is None else _cost(cost)),
    }  # fmt: skip


def plan_row(plan: Plan) -> Row:
    """A plan: the fleet, its interval and constraint, and the figures of its run."""
    return {
        "fleet": plan.scope, "replicas_low": plan.interval.low, "replicas_high": plan.interval.high,
        "binding": plan.binding.constraint, **run_row(plan.chosen, plan.cost),
    }  # fmt: skip


def capacity_row(capacity: Capacity) -> Row:
    """A capacity: the rate with its interval, and the figures of the run just below it."""
    low, high = capacity.with_doubt or (None, None)
    return {
        **_estimate("capacity_per_s", capacity.rate), "capacity_per_gpu_s": capacity.rate_per_gpu_s,
        "capacity_with_doubt_low": low, "capacity_with_doubt_high": high, "seeds": len(capacity.by_seed),
        **run_row(capacity.kept),
    }  # fmt: skip


def _latencies(result: RunResult) -> Row:
    row: Row = {}
    for metric, latency in result.latencies.items():
        for name in ("mean", "p50", "p90", "p99"):
            row |= _estimate(f"{name}_{metric}", getattr(latency, name))
        if f"p{result.percentile:g}" not in ("p50", "p90", "p99"):
            row |= _estimate(f"p{result.percentile:g}_{metric}", latency.at_target)
    return row


def _estimate(name: str, estimate: Estimate) -> Row:
    ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {f"{name}{end}": value if math.isfinite(value) else None for end, value in ends.items()}


def _cost(cost: Cost) -> Row:
    row: Row = {}
    amounts: dict[str, Money] = {
        "usd_per_hour": cost.per_hour, "usd_per_month": cost.per_month,
        "usd_per_million_output_tokens": cost.per_million_output_tokens,
    }  # fmt: skip
    for name, money in amounts.items():
        row |= {name: money.typical, f"{name}_low": money.low, f"{name}_high": money.high}
    return row
