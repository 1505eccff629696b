"""Results as strict JSON, for scripts: the names of the results' fields, `null` where there is no value or bound."""

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.output.attribution import Attribution
from simulator.output.results import CONFIDENCE, Capacity, LoadCurve, Plan, RunResult
from simulator.output.wording import plan_sentence
from simulator.planning.compare import Comparison
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
    """The highest rate within the targets with its interval, every seed's, and the runs on both sides of the first."""
    head = {
        "rate_per_s": capacity.rate.value,
        "interval": {"low": capacity.rate.low, "high": capacity.rate.high, "confidence": CONFIDENCE},
        "with_step_time_doubt": capacity.with_doubt and dict(zip(("low", "high"), capacity.with_doubt, strict=True)),
        "doubt": capacity.doubt, "rate_per_gpu_s": capacity.rate_per_gpu_s, "replicas": capacity.replicas,
        "gpus": capacity.gpus, "badge": capacity.kept.badge, "by_seed": capacity.by_seed,
    }  # fmt: skip
    plain: dict[str, Any] = _plain(head)
    return {**plain, "kept": run_json(capacity.kept), "missed": run_json(capacity.missed)}


def attribution_json(found: Attribution) -> dict[str, Any]:
    """What a latency consists of, in seconds, with the part that the slowest owe most to."""
    plain: dict[str, Any] = _plain(found)
    return {**plain, "largest": found.largest, "knob": found.knob}


def compare_json(comparison: Comparison) -> dict[str, Any]:
    """Scenarios side by side; differences are fractions of the first one's figures, with their intervals."""
    contenders = [
        {
            "name": c.scenario.name, "replicas": c.runs[0].replicas, "gpus": c.runs[0].gpus, "steady": c.is_steady,
            "verdicts": [run.verdict for run in c.runs], "figures": _plain(c.figures),
            "differences": _plain(c.differences), "scenario": to_mapping(c.scenario),
        }
        for c in comparison.contenders
    ]  # fmt: skip
    return {"seeds": list(comparison.seeds), "percentile": comparison.percentile, "scenarios": contenders}


def sweep_json(table: pd.DataFrame, varied: list[str], folder: Path) -> dict[str, Any]:
    """A sweep, a row a point; `varied` are the columns that set the points apart."""
    rows = [_plain({str(k): _known(v) for k, v in row.items()}) for row in table.to_dict("records")]
    return {"folder": str(folder), "varied": varied, "points": rows}


def _known(value: Any) -> Any:
    """A cell of a table as Python has it; None where it is missing."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is pd.NaT or value is pd.NA else value


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name not in _LARGE}
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
