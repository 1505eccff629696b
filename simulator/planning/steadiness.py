"""Is what a run shows a steady state? Cut the warm-up, then look for drift; a transient is never taken for an answer.

* Warm-up: MSER (White 1997) on the number of requests in the system and on the latencies: the cut, within the first
  half, that makes the mean of the rest most certain.
* Length: what is left has to span `STAYS` times a request's stay. A fleet of long answers fills and settles slowly, and
  for a few stays it looks as if it stood still.
* Backlog: the number in the system over time, a line fitted through the means of `BINS` stretches; its slope against
  its standard error, which counts that neighbouring stretches are alike.
* The latencies themselves: means of the first and the last part (Geweke 1992), with errors by batch means.
* Unstable: the backlog grew at half the time, and now grows as fast as then. Filling up and settling slow down;
  overload does not.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import linregress

from roofline.step_time import FloatArray
from simulator.output.collector import Collector
from simulator.output.results import METRICS
from simulator.planning.interval import mean_error

BINS = 32
MSER_BATCH = 5
STAYS = 15.0
DRIFT_SIGMAS = 3.0
DRIFT_MATTERS = 0.05  # of the mean: less is no drift that would change an answer
GROWTH_SIGMAS = 4.0
GROWTH_MATTERS = 0.005  # of the offered rate
STILL_GROWING = 0.75  # of the earlier growth; what grows as the root of time has 0.71 left after twice the time


@dataclass(frozen=True, slots=True)
class Growth:
    """The backlog's growth over the later half of a run, in requests per second, and its standard error."""

    rate_per_s: float
    error_per_s: float
    elapsed_s: float

    def is_clear(self, offered_rate_per_s: float) -> bool:
        """True where it is neither chance nor a trifle."""
        return self.rate_per_s > max(GROWTH_SIGMAS * self.error_per_s, GROWTH_MATTERS * offered_rate_per_s)


def warmup(series: FloatArray) -> int:
    """Values to cut from the front of a series, at most half of them."""
    count = len(series) // MSER_BATCH
    if count < 2:
        return 0
    means = series[: count * MSER_BATCH].reshape(count, MSER_BATCH).mean(axis=1)
    left = np.arange(count, 0, -1, dtype=np.float64)  # values that a cut before index i leaves
    sums, squares = np.cumsum(means[::-1])[::-1], np.cumsum(means[::-1] ** 2)[::-1]
    error = np.maximum(squares - sums**2 / left, 0.0) / left**2
    return int(np.argmin(error[: count // 2 + 1])) * MSER_BATCH


def common_warmup(collected: Collector) -> int:
    """The requests to cut so that the queue and every latency have settled as far as the first half can show."""
    complete = collected.num_complete
    series = [collected.in_system(collected.arrival_s[:complete])]
    series += [_defined(collected.latencies_s[metric][:complete]) for metric in METRICS]
    return max(warmup(values) for values in series)


def stays(collected: Collector, cut: int) -> float:
    """How often a request's mean stay fits into the time that the cut leaves."""
    complete = collected.num_complete
    if complete - cut < 2:
        return 0.0
    span_s = collected.arrival_s[complete - 1] - collected.arrival_s[cut]
    stay_s = _defined(collected.latencies_s["e2e_s"][cut:complete])
    return float(span_s / np.mean(stay_s)) if len(stay_s) else 0.0


def growth(collected: Collector) -> Growth:
    """How fast the number of requests in the system has grown over the later half of the time."""
    times_s = np.linspace(collected.now_s / 2, collected.now_s, BINS * 8)
    return _growth(times_s, collected.in_system(times_s), collected.now_s)


def drift(collected: Collector, cut: int) -> str | None:
    """What still drifts after the cut, in words; None if nothing does."""
    complete = collected.num_complete
    begin_s, end_s = collected.arrival_s[cut], collected.arrival_s[complete - 1]
    times_s = np.linspace(begin_s, end_s, BINS * 8)
    backlog = collected.in_system(times_s)
    trend = _growth(times_s, backlog, end_s)
    moved = trend.rate_per_s * (end_s - begin_s)
    if abs(trend.rate_per_s) > DRIFT_SIGMAS * trend.error_per_s and abs(moved) > 2 * DRIFT_MATTERS * backlog.mean():
        return f"the number of requests in the system still moves by {trend.rate_per_s:+.3g} a second"
    for metric in METRICS:
        values = _defined(collected.latencies_s[metric][cut:complete])
        if len(values) and _has_moved(values):
            return f"mean {metric[:-2].upper()} still moves"
    return None


def overloaded(collected: Collector, before: Growth | None, offered_rate_per_s: float) -> bool:
    """True where the backlog grows without slowing down; `before` is its growth at half the time or earlier.

    Nothing is said before requests have passed through the system a few times: it fills up first.
    """
    now = growth(collected)
    if before is None or now.elapsed_s < 1.9 * before.elapsed_s or not has_turned_over(collected):
        return False
    still = now.rate_per_s > STILL_GROWING * before.rate_per_s
    return now.is_clear(offered_rate_per_s) and before.is_clear(offered_rate_per_s) and still


def has_turned_over(collected: Collector) -> bool:
    """True after three mean times in service."""
    served_s = _defined(collected.in_service_s)
    return len(served_s) > 0 and collected.now_s > 3.0 * float(np.mean(served_s))


def _growth(times_s: FloatArray, backlog: FloatArray, elapsed_s: float) -> Growth:
    means = backlog.reshape(BINS, -1).mean(axis=1)
    centres_s = times_s.reshape(BINS, -1).mean(axis=1)
    if not centres_s[-1] > centres_s[0]:
        return Growth(0.0, math.inf, elapsed_s)
    line = linregress(centres_s, means)
    rest = means - line.intercept - line.slope * centres_s
    power = float(rest @ rest)
    alike = min(0.95, max(0.0, float(rest[1:] @ rest[:-1]) / power)) if power > 0 else 0.0
    return Growth(float(line.slope), float(line.stderr) * math.sqrt((1 + alike) / (1 - alike)), elapsed_s)


def _has_moved(values: FloatArray) -> bool:
    """Geweke's comparison of the first third with the last half."""
    first, last = values[: len(values) // 3], values[len(values) // 2 :]
    apart = float(last.mean() - first.mean())
    error = math.hypot(mean_error(first), mean_error(last))
    return abs(apart) > DRIFT_SIGMAS * error and abs(apart) > DRIFT_MATTERS * float(values.mean())


def _defined(values: FloatArray) -> FloatArray:
    return values[~np.isnan(values)]
