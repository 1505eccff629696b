"""Costs of the physical form from measured steps: robust, non-negative, about a second for 100,000 rows.

The form is homogeneous in its costs, so with the slopes taken at the present costs a step's time is exactly linear in
them. Each round is one non-negative least-squares problem on those slopes with three weights renewed:

* relative error: each row is divided by its predicted time (not its measured one, which would favour small values and
  bias the fit low);
* the spread of its region (decode, prefill, mixed), so that thousands of decodes with 2 % noise do not drown a hundred
  mixed passes, nor the other way round;
* Huber's: a row beyond `HUBER_K` spreads pulls with bounded force.

A prior (costs expected from a roofline) enters as one weak row a term: it decides only what the data leave open.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from calibration.form import TERMS, Join, Scope, predict, slopes
from roofline.step_time import FloatArray

HUBER_K = 3.0  # in spreads: the tail that a simulator must reproduce still counts in full
MIN_SPREAD = 0.005  # no region is trusted below half a percent: clocks drift more than that
WIDE_SPREAD = 0.1  # before a fit is known, all rows alike
MAX_ROUNDS = 40
REFINEMENTS = 2
START_ROWS = 3_000  # rows that choose among the starts
SMALLEST_FIXED_S = 1e-9  # a step takes time even where a fit has nothing to say
TINY_S = 1e-12
WEIGHT_READ = TERMS.index("weight_read_s")


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What is fitted: amounts (rows, terms), measured seconds (rows,), region index (rows,) and the terms in play."""

    amounts: FloatArray
    seconds: FloatArray
    regions: NDArray[np.int64]
    active: NDArray[np.bool_]  # (terms,): the others stay at zero
    join: Join = "max"
    scope: Scope = "linear"
    prior: FloatArray | None = None  # (terms,) costs; NaN or 0 where nothing is expected
    prior_spread: float = 1.0  # relative: 1 is "the right size, perhaps twice as much"

    def rows(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Problem":
        """The same problem on some of its rows."""
        return replace(self, amounts=self.amounts[index], seconds=self.seconds[index], regions=self.regions[index])

    def thinned(self, limit: int) -> "Problem":
        """The same problem on at most `limit` rows, evenly spread."""
        count = len(self.seconds)
        return self if count <= limit else self.rows(np.linspace(0, count - 1, limit).astype(np.int64))

    def predicted(self, costs: FloatArray) -> FloatArray:
        """Seconds of every row under these costs."""
        return np.asarray(np.maximum(predict(self.amounts, costs, self.join, self.scope), TINY_S))


def solve(problem: Problem) -> FloatArray:
    """The costs, shape (terms,), all >= 0: the best of several starts on a part of the rows, finished on all.

    The starts run under one wide spread for all rows: a spread learnt from a bad start would excuse it.
    """
    part = problem.thinned(START_ROWS)
    wide = np.full(len(part.seconds), WIDE_SPREAD)
    found = [_descend(part, start, wide) for start in _starts(part)]
    costs: FloatArray = min(found, key=lambda costs: _objective(part, costs, wide))
    for _ in range(REFINEMENTS):
        costs = _descend(problem, costs, spreads(problem, costs))
    costs[0] = max(costs[0], SMALLEST_FIXED_S)
    return costs


def spreads(problem: Problem, costs: FloatArray) -> FloatArray:
    """Robust relative spread of each row's region, shape (rows,); small regions lean on the whole."""
    relative = np.abs(np.log(problem.seconds / problem.predicted(costs)))
    overall = 1.48 * float(np.median(relative))
    result = np.full(len(relative), overall)
    for region in np.unique(problem.regions):
        inside = problem.regions == region
        trust = inside.sum() / (inside.sum() + 20.0)
        result[inside] = trust * 1.48 * float(np.median(relative[inside])) + (1.0 - trust) * overall
    return np.asarray(np.maximum(result, MIN_SPREAD))


def _starts(problem: Problem) -> list[FloatArray]:
    """Costs to begin from: the sum join solved robustly, its fixed part seen as fixed, as shared, or as weight read."""
    summed = replace(problem, join="sum")
    rough = _nnls(summed, problem.amounts, 1.0 / problem.seconds, np.zeros(len(TERMS)))
    additive = _descend(summed, rough, np.full(len(problem.seconds), WIDE_SPREAD))
    total = additive[0] + additive[WEIGHT_READ]
    starts = []
    for share in (0.0, 0.5, 0.95) if problem.active[WEIGHT_READ] else (0.0,):
        start = additive.copy()
        start[0], start[WEIGHT_READ] = (1.0 - share) * total, share * total
        starts.append(start)
    if problem.prior is not None:
        starts.append(np.where(problem.active & np.isfinite(problem.prior), problem.prior, additive))
    return starts


def _descend(problem: Problem, start: FloatArray, spread: FloatArray) -> FloatArray:
    """The nearest minimum under each row's relative `spread`."""
    costs = start
    for _ in range(MAX_ROUNDS):
        gradient = slopes(problem.amounts, costs, problem.join, problem.scope)
        predicted = np.maximum(gradient @ costs, TINY_S)
        size = np.abs(problem.seconds / predicted - 1.0) / spread
        huber = np.sqrt(np.minimum(1.0, HUBER_K / np.maximum(size, TINY_S)))
        target = _nnls(problem, gradient, huber / (predicted * spread), costs)
        moved = _best_step(problem, costs, target, spread)
        if np.allclose(moved, costs, rtol=1e-5, atol=1e-18):
            return moved
        costs = moved
    return costs


def _best_step(problem: Problem, costs: FloatArray, target: FloatArray, spread: FloatArray) -> FloatArray:
    """The first point from `target` back towards `costs` that improves the objective, or `costs` where none does."""
    present = _objective(problem, costs, spread)
    for part in (1.0, 0.5, 0.2, 0.05):
        candidate = costs + part * (target - costs)
        if _objective(problem, candidate, spread) < present:
            return candidate
    return costs


def _objective(problem: Problem, costs: FloatArray, spread: FloatArray) -> float:
    """Huber's loss of relative errors, weighed at a prediction of its own, plus the prior's."""
    relative = problem.seconds / problem.predicted(costs)
    # The logarithm counts a prediction of half and one of double alike, whatever the round's weights.
    size = np.abs(np.log(relative)) / spread
    loss = np.where(size <= HUBER_K, 0.5 * size**2, HUBER_K * (size - 0.5 * HUBER_K))
    matrix, expected = _prior_rows(problem)
    return float(loss.sum()) + 0.5 * float(((matrix @ costs - expected) ** 2).sum())


def _prior_rows(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """The prior as weighted rows: matrix (expected terms, terms) and right-hand side."""
    if problem.prior is None:
        return np.zeros((0, len(TERMS))), np.zeros(0)
    expected = np.flatnonzero(problem.active & np.isfinite(problem.prior) & (problem.prior > 0))
    matrix = np.zeros((len(expected), len(TERMS)))
    matrix[np.arange(len(expected)), expected] = 1.0 / (problem.prior[expected] * problem.prior_spread)
    return matrix, np.full(len(expected), 1.0 / problem.prior_spread)


def _nnls(problem: Problem, matrix: FloatArray, weights: FloatArray, costs: FloatArray) -> FloatArray:
    """Non-negative least squares of weighted rows plus the prior's; a term that no row contains keeps its cost."""
    prior, expected = _prior_rows(problem)
    full = np.vstack([matrix * weights[:, None], prior])
    scale = np.sqrt((full**2).sum(axis=0))
    seen = problem.active & (scale > 0)
    right = np.concatenate([problem.seconds * weights, expected])
    scaled = np.column_stack([full[:, seen] / scale[seen], right])
    triangle: FloatArray = np.asarray(np.linalg.qr(scaled, mode="r"))  # the same problem in at most terms + 1 rows
    solution = np.where(problem.active, costs, 0.0)
    solution[seen] = nnls(triangle[:, :-1], triangle[:, -1])[0] / scale[seen]
    return solution
