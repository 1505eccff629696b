"""Latency against offered load through the knee, for a fleet as it is."""

from collections.abc import Callable
from dataclasses import replace

from simulator.deployment import resolve
from simulator.output.results import LoadCurve
from simulator.planning.criteria import is_clear
from simulator.planning.probes import saturated_rate_per_s
from simulator.planning.steady import steady_run
from simulator.scenario import Scenario

LOADS = (0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 1.0, 1.1)  # of the rate at which the fleet never runs out of work

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
