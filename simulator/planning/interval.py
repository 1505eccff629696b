"""Confidence intervals of means and percentiles of a simulated series, whose values depend on their neighbours.

A request that waits delays the next one, so n latencies say less than n independent ones would. Batch means measure how
much less: the series is cut into `BATCHES` stretches, and the spread of their means is the spread that matters. A
percentile's interval follows from the share of values below it (Woodruff 1952): that share is a mean too, and its
interval, read off the sorted values, is the percentile's. (Law, Simulation Modeling and Analysis, ch. 9.)
"""

import math

import numpy as np
from scipy.stats import t

from roofline.step_time import FloatArray
from simulator.output.results import CONFIDENCE, Estimate

BATCHES = 16
_T = float(t.ppf((1 + CONFIDENCE) / 2, BATCHES - 1))


def mean_error(series: FloatArray) -> float:
    """Standard error of a series' mean by batch means; infinite for fewer values than batches.

    Never below what independent values would have: batches that happen to agree are no knowledge.
    """
    size = len(series) // BATCHES
    if size == 0:
        return math.inf
    means = series[len(series) - size * BATCHES :].reshape(BATCHES, size).mean(axis=1)
    independent = float(series.std(ddof=1)) / math.sqrt(len(series)) if len(series) > 1 else math.inf
    return max(float(means.std(ddof=1)) / math.sqrt(BATCHES), independent)


def mean_estimate(series: FloatArray) -> Estimate:
    """The mean of a series in its order of time."""
    if len(series) == 0:
        return Estimate(math.nan, -math.inf, math.inf)
    middle, reach = float(series.mean()), _T * mean_error(series)
    return Estimate(middle, middle - reach, middle + reach)


def independent_mean(values: FloatArray) -> Estimate:
    """The mean of independent values, one a seed; its interval is infinite for a single one."""
    middle = float(values.mean())
    if len(values) < 2:
        return Estimate(middle, -math.inf, math.inf)
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1)) / math.sqrt(len(values))
    return Estimate(middle, middle - reach, middle + reach)


def share_estimate(kept: FloatArray) -> Estimate:
    """The share of ones in a series of zeros and ones, within 0 and 1."""
    estimate = mean_estimate(kept)
    # n values that all agree still leave about 3 / n in doubt (the rule of three).
    doubt = 3.0 / max(len(kept), 1)
    low, high = min(estimate.low, 1.0 - doubt), max(estimate.high, doubt)
    return Estimate(estimate.value, max(0.0, low), min(1.0, high))


def percentile_estimate(series: FloatArray, percent: float) -> Estimate:
    """A percentile of a series in its order of time; its upper bound is infinite where the tail is too thin to tell."""
    if len(series) == 0:
        return Estimate(math.nan, -math.inf, math.inf)
    ordered = np.sort(series)
    value = float(np.percentile(ordered, percent))
    reach = _T * _share_error(series, value, percent / 100)
    low, high = percent / 100 - reach, percent / 100 + reach
    return Estimate(value, _at(ordered, low, -math.inf), _at(ordered, high, math.inf))


def _share_error(series: FloatArray, value: float, share: float) -> float:
    """Standard error of the share of values at or below `value`; at least that of as many independent values."""
    error = mean_error((series <= value).astype(np.float64))
    return max(error, math.sqrt(share * (1 - share) / len(series)))


def _at(ordered: FloatArray, share: float, beyond: float) -> float:
    """The value below which that share of `ordered` lies; `beyond` where the share leaves the data."""
    if not 0 < share < 1:
        return beyond
    return float(np.quantile(ordered, share, method="lower" if beyond < 0 else "higher"))
