"""Targets that no number of replicas meets: said at once, with the nearest change that would."""

from collections.abc import Mapping

from roofline.errors import HeadroomError, InfeasibleError, InputError
from roofline.parallelism import degrees
from simulator.deployment import Deployment, resolve
from simulator.output.results import Metric
from simulator.output.wording import METRIC_NAMES, in_ms
from simulator.planning.probes import unloaded

DEGREES_TO_TRY = (2, 4, 8)  # GPUs that servers join by a fast link


def check_feasible(deployment: Deployment, alone_s: dict[Metric, float]) -> None:
    """InputError without targets; InfeasibleError where a request with a replica for itself misses one."""
    targets_s = deployment.scenario.slo.targets_s
    if not targets_s:
        raise InputError("slo is empty: a plan needs a target; give slo.ttft_ms, slo.tpot_ms or slo.e2e_ms.")
    if (metric := missed_alone(targets_s, alone_s)) is not None:
        raise InfeasibleError(_sentence(deployment, metric, targets_s[metric], alone_s[metric]))


def missed_alone(targets_s: Mapping[Metric, float], alone_s: Mapping[Metric, float]) -> Metric | None:
    """The first target that requests with a replica each for themselves miss: no number of replicas meets it."""
    return next((metric for metric, target_s in targets_s.items() if alone_s.get(metric, 0.0) >= target_s), None)


def _sentence(deployment: Deployment, metric: Metric, target_s: float, reached_s: float) -> str:
    percentile, name = deployment.scenario.slo.percentile, metric.removesuffix("_s")
    return (
        f"slo.{name}_ms is {target_s * 1000:g}, and p{percentile:g} {METRIC_NAMES[metric]} is {in_ms(reached_s)} even "
        f"where each request has a whole replica for itself, so no number of replicas meets it; nearest change: "
        f"{_remedy(deployment)}slo.{name}_ms above {reached_s * 1000:.3g}."
    )


def _remedy(deployment: Deployment) -> str:
    """The smallest higher degree that meets every target alone, where arithmetic can say; else nothing."""
    scenario = deployment.scenario
    if deployment.badge != "analytic":
        return ""
    for degree in (n for n in DEGREES_TO_TRY if n > scenario.parallelism.tensor and n in degrees(deployment.shape)):
        parallelism = scenario.parallelism.model_copy(update={"tensor": degree})
        try:
            alone_s = unloaded(resolve(scenario.model_copy(update={"parallelism": parallelism})))
        except HeadroomError:
            return ""  # no link, or no room: the degree is no remedy
        if missed_alone(scenario.slo.targets_s, alone_s) is None:
            return f"parallelism.tensor {degree}, or "
    return ""
