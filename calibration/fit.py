"""Measured steps in, a `FittedStepTime` out: candidates of rising complexity, chosen by what they say of unseen regions.

Candidates differ in how memory and compute join (form.py) and in which terms are in play. Each is judged by grouped
cross-validation: steps are grouped into cells of batch x context x prefill size, whole cells are held out, and a cell
counts by its error, not by how many thousand steps fell into it. Random rows would be neighbours of the rows fitted and
flatter every candidate. The simplest candidate within one standard error of the best wins.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy import ErrorCell, error_cells, octave
from calibration.fitted import (
    LAGS, QUANTILES, RANGE_AMOUNTS, FittedStepTime, Provenance, ResidualStats, RowCount, ValidRange,
)  # fmt: skip
from calibration.form import JOINS, SCOPES, TERMS, Join, Scope, StepTimeForm, predict
from calibration.measurements import REGIONS, Measurements, identity
from calibration.prior import prior_costs
from calibration.solve import Problem, solve, spreads
from roofline.errors import TraceError
from roofline.step_time import FloatArray, StepTimeModel

FOLDS = 4
SELECTION_ROWS = 2_000  # fitted a fold; every held-out row is judged
MIN_ROWS = 10
OUTLIER_RATIO = 1.5  # measured / predicted, either way; at least OUTLIER_SPREADS of the region as well
OUTLIER_SPREADS = 8.0
CELL_WEIGHT_ROWS = 100  # a cell counts by the root of its rows, up to so many
GROUPED, IN_TIME = "grouped hold-out", "second half in time"

CORE = (
    "fixed_s", "weight_read_s", "s_per_token", "s_per_attn_pair", "s_per_decode_kv_token", "s_per_decode_seq",
)  # fmt: skip
TERM_SETS: tuple[tuple[str, ...], ...] = (
    CORE,
    (*CORE, "s_per_prefill_seq"),
    (*CORE, "s_per_prefill_seq", "s_per_prefill_kv_token"),
)
SKEW = "s_per_decode_kv_max_token"  # tried only where the longest context was measured


@dataclass(frozen=True, slots=True)
class Candidate:
    """One shape of the form."""

    terms: tuple[str, ...]
    join: Join
    scope: Scope = "linear"

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which of `TERMS` are in play; where costs add up, the weight read is part of the fixed cost."""
        return np.array([name in self.terms and not (self.join == "sum" and name == "weight_read_s") for name in TERMS])


def fit(measurements: Measurements, fitted_at: datetime, prior: StepTimeModel | None = None) -> FittedStepTime:
    """The model of these steps; raises TraceError where there are too few to say anything."""
    if len(measurements) < MIN_ROWS:
        raise TraceError(
            f"{', '.join(measurements.sources) or 'the trace'} has {len(measurements)} usable steps; a fit needs at "
            f"least {MIN_ROWS}: measure for longer, or give more traces."
        )
    regular = _regular(measurements, prior)
    kept = measurements.select(regular)
    candidate = _choose(kept, prior)
    costs = solve(_problem(kept, candidate, prior))
    predicted = predict(kept.amounts, costs, candidate.join, candidate.scope)
    outlier_seconds = float(measurements.seconds[~regular].sum())
    return FittedStepTime(
        form=StepTimeForm(*map(float, costs), join=candidate.join, scope=candidate.scope),
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


def _problem(measurements: Measurements, candidate: Candidate, prior: StepTimeModel | None) -> Problem:
    expected = None if prior is None else prior_costs(prior, measurements, candidate.active)
    return Problem(
        measurements.amounts, measurements.seconds, measurements.regions, candidate.active, candidate.join,
        candidate.scope, expected,
    )  # fmt: skip


def _regular(measurements: Measurements, prior: StepTimeModel | None) -> NDArray[np.bool_]:
    """False for outliers: steps that no spread of their region explains (a neighbour's time, a paused machine)."""
    terms = TERM_SETS[-1]
    problems = [_problem(measurements, Candidate(terms, *form), prior) for form in (("sum", "linear"), ("max", "whole"))]
    regular = np.zeros(len(measurements), dtype=bool)
    for problem in problems:  # an outlier is one under either reading of how the costs join
        costs = solve(problem)
        distance = np.abs(np.log(problem.seconds / problem.predicted(costs)))
        regular |= distance <= np.maximum(math.log(OUTLIER_RATIO), OUTLIER_SPREADS * spreads(problem, costs))
    return regular


def _choose(measurements: Measurements, prior: StepTimeModel | None) -> Candidate:
    """First how the costs join, with every term in play; then the fewest terms that do as well."""
    cells = _cells(measurements)
    sets = TERM_SETS if "decode_kv_max" in measurements.derived else (*TERM_SETS, (*TERM_SETS[-1], SKEW))
    shapes = [Candidate(TERM_SETS[-1], "sum")]
    shapes += [Candidate(TERM_SETS[-1], join, scope) for join in JOINS if join != "sum" for scope in SCOPES]
    scores = [_weighted(_cell_errors(measurements, cells, candidate, prior), cells) for candidate in shapes]
    shape = shapes[int(np.argmin(scores))]
    return _simplest_good(measurements, cells, [replace(shape, terms=terms) for terms in sets], prior)


def _simplest_good(
    measurements: Measurements, cells: NDArray[np.int64], candidates: list[Candidate], prior: StepTimeModel | None
) -> Candidate:
    """The first candidate whose cells' errors are within one standard error of the best one's."""
    scores = [_cell_errors(measurements, cells, candidate, prior) for candidate in candidates]
    best = min(scores, key=lambda score: _weighted(score, cells))
    for candidate, score in zip(candidates, scores, strict=True):
        excess = score - best
        mean = _weighted(excess, cells)
        weights = _cell_weights(cells)
        if mean <= math.sqrt(float(((excess - mean) ** 2 * weights**2).sum())):
            return candidate
    raise AssertionError("the best candidate is within its own error")


def _weighted(scores: FloatArray, cells: NDArray[np.int64]) -> float:
    return float(scores @ _cell_weights(cells))


def _cell_weights(cells: NDArray[np.int64]) -> FloatArray:
    """Weights of the cells, shape (cells,), summing to one."""
    weights = np.sqrt(np.minimum(np.bincount(cells), CELL_WEIGHT_ROWS))
    return np.asarray(weights / weights.sum())


def _cell_errors(
    measurements: Measurements, cells: NDArray[np.int64], candidate: Candidate, prior: StepTimeModel | None
) -> FloatArray:
    """Mean |log(measured / held-out prediction)| of every cell, shape (cells,)."""
    predicted = _held_out_predictions(measurements, cells, candidate, prior)
    error = np.minimum(np.abs(np.log(measurements.seconds / predicted)), 1.0)
    return np.bincount(cells, weights=error) / np.bincount(cells)


def _held_out_predictions(
    measurements: Measurements, cells: NDArray[np.int64], candidate: Candidate, prior: StepTimeModel | None
) -> FloatArray:
    """Seconds of every step by a fit that saw no step of its cell, shape (steps,)."""
    problem = _problem(measurements, candidate, prior)
    fold_of_cell = _folds(np.bincount(cells))
    folds = fold_of_cell[cells]
    predicted = np.empty(len(measurements))
    for fold in range(int(fold_of_cell.max()) + 1):
        held_out = folds == fold
        training = problem if held_out.all() else problem.rows(~held_out)
        costs = solve(training.thinned(SELECTION_ROWS))
        predicted[held_out] = problem.rows(held_out).predicted(costs)
    return predicted


def _cells(measurements: Measurements) -> NDArray[np.int64]:
    """The cell of every step: same region, and the same power of two of batch, mean context and prefill tokens."""
    columns = measurements.columns
    keys = np.column_stack(
        [
            measurements.regions,
            octave(columns["num_decode_seqs"]),
            octave(columns["decode_kv_tokens"] / np.maximum(columns["num_decode_seqs"], 1.0)),
            octave(columns["prefill_tokens"]),
            octave(columns["prefill_kv_tokens"]) // 4,
        ]
    )
    cells: NDArray[np.int64] = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return cells


def _folds(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """A fold for every cell: the largest cells first, each into the fold with the fewest steps so far."""
    folds, load = np.zeros(len(sizes), dtype=np.int64), np.zeros(min(FOLDS, len(sizes)))
    for cell in np.argsort(-sizes, kind="stable"):
        folds[cell] = int(np.argmin(load))
        load[folds[cell]] += sizes[cell]
    return folds


def _held_out_errors(
    measurements: Measurements, candidate: Candidate, prior: StepTimeModel | None
) -> tuple[ErrorCell, ...]:
    """The chosen candidate on steps it has not seen: whole cells left out, and the later half of every run."""
    cells = _cells(measurements)
    grouped = error_cells(measurements, _held_out_predictions(measurements, cells, candidate, prior), GROUPED)
    later = np.zeros(len(measurements), dtype=bool)
    for run in np.unique(measurements.runs):
        steps = np.flatnonzero(measurements.runs == run)
        later[steps[len(steps) // 2 :]] = True
    costs = solve(_problem(measurements.select(~later), candidate, prior))
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
