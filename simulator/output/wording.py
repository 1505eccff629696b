"""How figures are written for people: milliseconds, dollars, verdicts and constraints in words."""

import math

from simulator.output.results import Constraint, Estimate, Metric, Money, RunResult

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
    """Milliseconds with three figures; seconds from ten of them on."""
    if not math.isfinite(seconds):
        return "unknown" if math.isnan(seconds) else "no bound"
    return f"{seconds:,.1f} s" if seconds >= 10 else f"{seconds * 1000:,.0f} ms" if seconds >= 0.1 else _small(seconds)


def _small(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def estimate_in_ms(estimate: Estimate) -> str:
    """As in `120 ms (110 to 135 ms)`."""
    return f"{in_ms(estimate.value)} ({in_ms(max(estimate.low, 0.0))} to {in_ms(estimate.high)})"


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
    missed = ", ".join(
        f"p{result.percentile:g} {METRIC_NAMES[metric]} is {estimate_in_ms(result.latencies[metric].at_target)}, "
        f"target {in_ms(result.targets_s[metric])}"
        for metric in result.missed
    )
    if result.verdict == "undecided":
        so_far = f"; so far {missed}" if missed else ""
        return f"{name}: no steady state shown within {result.num_requests:,} requests, as {result.reason}{so_far}"
    return f"{name}: {missed}"
