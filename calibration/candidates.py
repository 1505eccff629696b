"""Which shape of the form: candidates of rising complexity, judged by what they say of regions they have not seen.

Candidates differ in how memory and compute join (form.py) and in which terms are in play. Steps are grouped into cells
of batch x context x prefill size, whole cells are held out, and a cell counts by its error, not by how many thousand
steps fell into it. Random rows would be neighbours of the rows fitted and flatter every candidate. The best join wins,
then the fewest terms within one standard error of the best.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy import octave
from calibration.form import JOINS, SCOPES, TERMS, Join, Scope
from calibration.measurements import Measurements
from calibration.prior import prior_costs
from calibration.solve import Problem, solve
from roofline.step_time import FloatArray, StepTimeModel

FOLDS = 4
SELECTION_ROWS = 2_000  # fitted a fold; every held-out row is judged
CELL_WEIGHT_ROWS = 100  # a cell counts by the root of its rows, up to so many

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


def problem_of(measurements: Measurements, candidate: Candidate, prior: StepTimeModel | None) -> Problem:
    """The fit of one candidate to these steps, with what the roofline expects of its costs."""
    expected = None if prior is None else prior_costs(prior, measurements, candidate.active)
    return Problem(
        measurements.amounts, measurements.seconds, measurements.regions, candidate.active, candidate.join,
        candidate.scope, expected,
    )  # fmt: skip


def choose(measurements: Measurements, prior: StepTimeModel | None) -> Candidate:
    """First how the costs join, with every term in play; then the fewest terms that do as well."""
    cells = cells_of(measurements)
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
    predicted = held_out_predictions(measurements, cells, candidate, prior)
    error = np.minimum(np.abs(np.log(measurements.seconds / predicted)), 1.0)
    return np.bincount(cells, weights=error) / np.bincount(cells)


def held_out_predictions(
    measurements: Measurements, cells: NDArray[np.int64], candidate: Candidate, prior: StepTimeModel | None
) -> FloatArray:
    """Seconds of every step by a fit that saw no step of its cell, shape (steps,)."""
    problem = problem_of(measurements, candidate, prior)
    fold_of_cell = _folds(np.bincount(cells))
    folds = fold_of_cell[cells]
    predicted = np.empty(len(measurements))
    for fold in range(int(fold_of_cell.max()) + 1):
        held_out = folds == fold
        training = problem if held_out.all() else problem.rows(~held_out)
        costs = solve(training.thinned(SELECTION_ROWS))
        predicted[held_out] = problem.rows(held_out).predicted(costs)
    return predicted


def cells_of(measurements: Measurements) -> NDArray[np.int64]:
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
