"""Measured steps in, a `FittedStepTime` out.

Steps that nothing explains are set apart and counted, candidates.py chooses the shape of the form, solve.py finds its
costs, and the result carries its range, the spread of its residuals and its errors on steps it has not seen.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy import ErrorCell, error_cells
from calibration.candidates import TERM_SETS, Candidate, cells_of, choose, held_out_predictions, problem_of
from calibration.fitted import (
    LAGS,
    QUANTILES,
    RANGE_AMOUNTS,
    FittedStepTime,
    Provenance,
    ResidualStats,
    RowCount,
    ValidRange,
)
from calibration.form import Join, Scope, form_of, predict
from calibration.measurements import REGIONS, Measurements, identity
from calibration.solve import solve, spreads
from roofline.errors import TraceError
from roofline.step_time import FloatArray, StepTimeModel

MIN_ROWS = 10
OUTLIER_FORMS: tuple[tuple[Join, Scope], ...] = (("sum", "linear"), ("max", "whole"))  # the two extremes
OUTLIER_RATIO = 1.5  # measured / predicted, either way; at least OUTLIER_SPREADS of the region as well
OUTLIER_SPREADS = 8.0
GROUPED, IN_TIME = "grouped hold-out", "second half in time"


def fit(measurements: Measurements, fitted_at: datetime, prior: StepTimeModel | None = None) -> FittedStepTime:
    """The model of these steps; raises TraceError where there are too few to say anything."""
    if len(measurements) < MIN_ROWS:
        raise TraceError(
            f"{', '.join(measurements.sources) or 'the trace'} has {len(measurements)} usable steps; a fit needs at "
            f"least {MIN_ROWS}: measure for longer, or give more traces."
        )
    regular = _regular(measurements, prior)
    kept = measurements.select(regular)
    candidate = choose(kept, prior)
    costs = solve(problem_of(kept, candidate, prior))
    predicted = predict(kept.amounts, costs, candidate.join, candidate.scope)
    outlier_seconds = float(measurements.seconds[~regular].sum())
    return FittedStepTime(
        form=form_of(costs, candidate.join, candidate.scope),
        valid_range=_valid_range(kept),
        residuals=_residuals(kept, predicted),
        provenance=_provenance(measurements, fitted_at),
        errors=_held_out_errors(kept, candidate, prior),
        rows=RowCount(
            used=len(kept),
            unusable=dict(measurements.unusable),
            outliers=int((~regular).sum()),
            outlier_time_share=outlier_seconds / float(measurements.seconds.sum()),
        ),
        notes=(*measurements.notes, *_open_questions(kept, prior)),
    )


def _regular(measurements: Measurements, prior: StepTimeModel | None) -> NDArray[np.bool_]:
    """False for outliers: steps that no spread of their region explains (a neighbour's time, a paused machine)."""
    terms = TERM_SETS[-1]
    problems = [
        problem_of(measurements, Candidate(terms, *form), prior) for form in (("sum", "linear"), ("max", "whole"))
    ]
    regular = np.zeros(len(measurements), dtype=bool)
    for problem in problems:  # an outlier is one under either reading of how the costs join
        costs = solve(problem)
        distance = np.abs(np.log(problem.seconds / problem.predicted(costs)))
        regular |= distance <= np.maximum(math.log(OUTLIER_RATIO), OUTLIER_SPREADS * spreads(problem, costs))
    return regular


def _held_out_errors(
    measurements: Measurements, candidate: Candidate, prior: StepTimeModel | None
) -> tuple[ErrorCell, ...]:
    """The chosen candidate on steps it has not seen: whole cells left out, and the later half of every run."""
    cells = cells_of(measurements)
    grouped = error_cells(measurements, held_out_predictions(measurements, cells, candidate, prior), GROUPED)
    later = np.zeros(len(measurements), dtype=bool)
    for run in np.unique(measurements.runs):
        steps = np.flatnonzero(measurements.runs == run)
        later[steps[len(steps) // 2 :]] = True
    costs = solve(problem_of(measurements.select(~later), candidate, prior))
    second = measurements.select(later)
    return grouped + error_cells(second, predict(second.amounts, costs, candidate.join, candidate.scope), IN_TIME)


def _valid_range(measurements: Measurements) -> ValidRange:
    largest = {}
    for index, region in enumerate(REGIONS):
        inside = measurements.regions == index
        if inside.any():
            largest[region] = {name: float(measurements.columns[name][inside].max()) for name in RANGE_AMOUNTS}
    return ValidRange(largest)


def _residuals(measurements: Measurements, predicted: FloatArray) -> dict[str, ResidualStats]:
    relative = measurements.seconds / predicted - 1.0
    result = {"all": _stats(relative, measurements.runs)}
    for index, region in enumerate(REGIONS):
        inside = measurements.regions == index
        if inside.any():
            result[region] = _stats(relative[inside], measurements.runs[inside])
    return result


def _stats(relative: FloatArray, runs: NDArray[np.int64]) -> ResidualStats:
    return ResidualStats(
        n=len(relative),
        mean=float(relative.mean()),
        std=float(relative.std()),
        quantiles=tuple(float(value) for value in np.quantile(relative, QUANTILES)),
        autocorrelation=tuple(_autocorrelation(relative, runs, lag) for lag in LAGS),
    )


def _autocorrelation(relative: FloatArray, runs: NDArray[np.int64], lag: int) -> float | None:
    """Correlation of residuals `lag` steps apart in the same run; None below 20 pairs or without any spread."""
    if len(relative) < lag + 20:
        return None
    same = runs[lag:] == runs[:-lag]
    centred = relative - relative.mean()
    variance = float((centred**2).mean())
    if same.sum() < 20 or variance == 0.0:
        return None
    return float((centred[lag:] * centred[:-lag])[same].mean()) / variance


def _provenance(measurements: Measurements, fitted_at: datetime) -> Provenance:
    def part(name: str) -> dict[str, Any]:
        value = measurements.meta.get(name)
        return dict(value) if isinstance(value, Mapping) else {}

    return Provenance(
        **identity(measurements.meta),  # type: ignore[arg-type]  # the four names, typed by identity()
        clock=measurements.clock,
        fitted_at=fitted_at.isoformat(timespec="seconds"),
        sources=measurements.sources,
        engine=part("engine"),
        engine_config=part("engine_config"),
        software=part("software"),
        licence=measurements.meta.get("licence"),
        attribution=measurements.meta.get("attribution"),
    )


def _open_questions(measurements: Measurements, prior: StepTimeModel | None) -> list[str]:
    """What these steps cannot tell, in words a user can act on."""
    seen = set(measurements.regions.tolist())
    source = "from the roofline" if prior is not None else "from the other steps' tokens alone"
    notes = []
    if not seen & {1, 2}:
        notes.append(f"No step holds a prefill: its cost is {source}; measure prompts to calibrate it.")
    if not seen & {0, 2}:
        notes.append(f"No step holds a decode: its cost is {source}; measure generation to calibrate it.")
    return notes
