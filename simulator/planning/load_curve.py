"""Latency against offered load through the knee, and the highest load that keeps the targets, for a fleet as it is."""

from collections.abc import Callable
from dataclasses import replace

from roofline.errors import InfeasibleError
from simulator.deployment import resolve
from simulator.output.results import Capacity, LoadCurve, RunResult
from simulator.output.wording import shortfall
from simulator.planning.criteria import is_clear, is_settled
from simulator.planning.feasible import check_feasible
from simulator.planning.probes import saturated_rate_per_s, unloaded
from simulator.planning.steady import steady_run
from simulator.scenario import Scenario

LOADS = (0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 1.0, 1.1)  # of the rate at which the fleet never runs out of work
FINE = 0.02  # how closely a capacity is found, as a fraction of it

Say = Callable[[str], None]


def load_curve(
    scenario: Scenario,
    say: Say = lambda sentence: None,
    loads: tuple[float, ...] = LOADS,
    count: Callable[[int], None] = lambda num_requests: None,
    found: Callable[[LoadCurve], None] = lambda curve: None,
) -> LoadCurve:
    """Simulate the scenario's fleet at several offered rates and say of each if it is steady.

    `loads` are fractions of the rate that the fleet serves when it never runs out of work. `count` is told of every n
    requests more, `found` is handed the curve as far as it goes.
    """
    deployment = resolve(scenario)
    replicas = scenario.fleet.replicas
    full_per_s = replicas * saturated_rate_per_s(deployment)
    curve = LoadCurve(replicas, replicas * deployment.gpus_per_replica, ())
    for rate_per_s in (load * full_per_s for load in loads):
        point = steady_run(deployment.at_rate(rate_per_s), replicas, is_clear, count)
        say(f"{rate_per_s:.4g} requests/s: {point.verdict}, {point.reason}")
        curve = replace(curve, points=(*curve.points, point))
        found(curve)
    return curve


def capacity(scenario: Scenario, say: Say = lambda sentence: None) -> Capacity:
    """The highest offered rate at which the scenario's fleet keeps the targets, by bisection on steady states.

    InputError without targets, InfeasibleError where even a request alone misses one.
    """
    deployment = resolve(scenario)
    check_feasible(deployment, unloaded(deployment))
    replicas = scenario.fleet.replicas

    def trial(rate_per_s: float) -> RunResult:
        result = steady_run(deployment.at_rate(rate_per_s), replicas, is_settled)
        say(f"{rate_per_s:.4g} requests/s: {'kept' if result.meets_targets else shortfall(result)}")
        return result

    low, high = _bracket(trial, replicas * saturated_rate_per_s(deployment))
    while high.offered_rate_per_s > (1 + FINE) * low.offered_rate_per_s:
        middle = trial((low.offered_rate_per_s + high.offered_rate_per_s) / 2)
        low, high = (middle, high) if middle.meets_targets else (low, middle)
    return Capacity(scenario, replicas, replicas * deployment.gpus_per_replica, low, high)


def _bracket(trial: Callable[[float], RunResult], full_per_s: float) -> tuple[RunResult, RunResult]:
    """A rate that keeps the targets and a higher one that does not."""
    result = trial(0.8 * full_per_s)
    factor = 1.25 if result.meets_targets else 0.5
    while True:
        other = trial(result.offered_rate_per_s * factor)
        if other.meets_targets != result.meets_targets:
            return (result, other) if result.meets_targets else (other, result)
        result = other
        if result.offered_rate_per_s < full_per_s / 1000:
            raise InfeasibleError(f"{shortfall(result)}, at a thousandth of the load it could serve; relax the target.")
