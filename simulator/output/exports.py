"""Results as strict JSON, for scripts: the names of the results' fields, `null` where there is no value or bound."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

from simulator.output.results import Capacity, LoadCurve, Plan, RunResult
from simulator.output.wording import plan_sentence
from simulator.scenario_file import to_mapping

_LARGE = ("samples_s", "scenario", "trials")  # not repeated in a summary


def run_json(result: RunResult) -> dict[str, Any]:
    """A run's figures; seconds, tokens per second, fractions."""
    plain: dict[str, Any] = _plain(result)
    return {"simulated": True, **plain, "meets_targets": result.meets_targets}


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan with its sentence, its scenario and every fleet that was tried."""
    plain: dict[str, Any] = _plain(plan)
    trials = [
        {"replicas": n, "verdict": r.verdict, "meets_targets": r.meets_targets, "num_requests": r.num_requests}
        for n, r in sorted(plan.trials.items())
    ]
    head = {"answer": plan_sentence(plan), "gpus": plan.gpus, "scope": plan.scope, "badge": plan.chosen.badge}
    return {**head, **plain, "trials": trials, "scenario": to_mapping(plan.scenario)}


def curve_json(curve: LoadCurve) -> dict[str, Any]:
    """A load curve, a run a point."""
    return {
        "replicas": curve.replicas,
        "gpus": curve.gpus,
        "max_sustainable_rate_per_s": curve.max_sustainable_rate_per_s,
        "points": [run_json(point) for point in curve.points],
    }


def capacity_json(capacity: Capacity) -> dict[str, Any]:
    """The highest rate within the targets, and the runs on both sides of it."""
    sides = {"kept": run_json(capacity.kept), "missed": run_json(capacity.missed)}
    return {"rate_per_s": capacity.rate_per_s, "replicas": capacity.replicas, "gpus": capacity.gpus, **sides}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name not in _LARGE}
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
