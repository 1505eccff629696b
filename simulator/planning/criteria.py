"""When has a run said enough? Each question has its own answer, asked at every checkpoint of the run."""

from simulator.output.results import RunResult

PRECISE = 0.1  # half an interval's width as a fraction of the figure
CLEAR = 0.25  # the same, for a point on a chart or beside a decision
ENOUGH_TO_DENY = 1_000  # requests behind a verdict against a fleet that has not settled yet


def is_precise(result: RunResult) -> bool:
    """True once the percentile that matters is known within 10 %, for every metric with a target (all, without)."""
    return result.is_steady and _known_within(result, PRECISE)


def is_clear(result: RunResult) -> bool:
    """True once that percentile is known within 25 %."""
    return result.is_steady and _known_within(result, CLEAR)


def is_settled(result: RunResult) -> bool:
    """True once a steady state keeps every target, or one is missed, whichever end of its interval is true.

    A fleet starts empty, which flatters it: a target missed before the steady state is missed in it as well.
    """
    pairs = [(result.latencies[metric].at_target, target_s) for metric, target_s in result.targets_s.items()]
    if any(estimate.low > target_s for estimate, target_s in pairs):
        return result.is_steady or result.num_requests >= ENOUGH_TO_DENY
    return is_clear(result) and all(estimate.high < target_s for estimate, target_s in pairs)


def is_placed(result: RunResult) -> bool:
    """True once it is settled, or the percentile that matters is known within 10 %: near a capacity, chance decides."""
    return is_settled(result) or is_precise(result)


def keeps(result: RunResult) -> bool:
    """True where a steady state keeps every target, as far as the figures themselves say; their intervals may not."""
    return result.is_steady and all(
        result.latencies[metric].at_target.value <= target_s for metric, target_s in result.targets_s.items()
    )


def _known_within(result: RunResult, fraction: float) -> bool:
    return all(latency.at_target.relative_half_width <= fraction for latency in result.asked.values())
