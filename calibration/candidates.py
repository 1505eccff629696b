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
SELECTION_ROWS = 2_000  # about so many are fitted a fold; every held-out row is judged
MIN_CELL_ROWS = 30
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
    folds = _folds(cells, measurements.regions)
    sample = _sample(cells)
    predicted = np.empty(len(measurements))
    for fold in np.unique(folds):
        held_out = folds == fold
        training = problem.rows(sample & ~held_out) if (sample & ~held_out).any() else problem
        predicted[held_out] = problem.rows(held_out).predicted(solve(training))
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


def _folds(cells: NDArray[np.int64], regions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fold of every step: each region's cells are dealt out, largest first.

    Dealt by size alone, a few cells of thousands of decodes fill the other folds and all mixed cells share one: held
    out together they leave nothing to learn from.
    """
    sizes, first = np.bincount(cells), np.unique(cells, return_index=True)[1]
    fold_of_cell = np.zeros(len(sizes), dtype=np.int64)
    dealt = 0
    for region in np.unique(regions):
        members = np.flatnonzero(regions[first] == region)
        members = members[np.argsort(-sizes[members], kind="stable")]
        fold_of_cell[members] = (dealt + np.arange(len(members))) % FOLDS
        dealt += len(members)
    folds: NDArray[np.int64] = fold_of_cell[cells]
    return folds


def _sample(cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for the steps that the folds are fitted on: rare cells whole, frequent ones thinned evenly."""
    sizes = np.bincount(cells)
    limit = max(MIN_CELL_ROWS, 2 * SELECTION_ROWS // len(sizes))
    order = np.argsort(cells, kind="stable")
    rank = np.empty(len(cells), dtype=np.int64)
    rank[order] = np.arange(len(cells)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    stride = -(-sizes // limit)  # rounded up
    sample: NDArray[np.bool_] = rank % stride[cells] == 0
    return sample
