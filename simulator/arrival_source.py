"""When a scenario's requests or sessions arrive: a renewal process whose clock a curve and spikes stretch."""

import math

import numpy as np

from engine.core.arrivals import ArrivalProcess
from roofline.step_time import FloatArray
from simulator import scenario as settings


def arrivals_s(workload: settings.Workload, rate_per_s: float, rng: np.random.Generator, count: int) -> FloatArray:
    """The first `count` arrivals at `rate_per_s` on average over a period of the curve, spikes not counted.

    Seconds of a process of constant rate are read as load; the time by which the curve has brought so much load is the
    arrival. So the gaps keep their law, and a rate of 5 is 5.
    """
    steady_s = ArrivalProcess(rate_per_s, workload.burstiness, workload.gaps).first(rng, count)
    if workload.rate_curve is None and not workload.spikes:
        return steady_s
    times_s, loads_s = _curve(workload, float(steady_s[-1]))
    return np.interp(steady_s, loads_s, times_s)


def _curve(workload: settings.Workload, load_s: float) -> tuple[FloatArray, FloatArray]:
    """Corners of the line from time to load, up to `load_s` of load and a little more."""
    curve = workload.rate_curve or settings.RateCurve(period_s=max(load_s, 1.0), factors=(1.0,))
    parts = np.array(curve.factors) / np.mean(curve.factors)
    # a spike below 1 takes load away, for which more periods are needed
    missing_s = sum(max(0.0, 1.0 - spike.factor) * spike.duration_s * parts.max() for spike in workload.spikes)
    periods = math.ceil((load_s + missing_s) / curve.period_s) + 1
    corners_s = np.arange(periods * len(parts) + 1) * (curve.period_s / len(parts))
    edges = [edge for spike in workload.spikes for edge in (spike.at_s, spike.at_s + spike.duration_s)]
    times_s = np.unique(np.append(corners_s, [edge for edge in edges if edge < corners_s[-1]]))
    middle_s = (times_s[1:] + times_s[:-1]) / 2
    rates = parts[(middle_s / curve.period_s * len(parts)).astype(int) % len(parts)]
    for spike in workload.spikes:
        during = (middle_s > spike.at_s) & (middle_s < spike.at_s + spike.duration_s)
        rates = np.where(during, rates * spike.factor, rates)
    return times_s, np.append(0.0, np.cumsum(rates * np.diff(times_s)))
