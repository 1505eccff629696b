"""From what a run left to its `RunResult`: the warm-up cut, every figure with its interval."""

import math
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from roofline.step_time import FloatArray
from simulator.deployment import Deployment
from simulator.output.collector import Collector
from simulator.output.results import METRICS, Estimate, Latency, Metric, RunResult, Verdict
from simulator.planning.interval import mean_estimate, percentile_estimate, share_estimate

BoolArray = NDArray[np.bool_]
FOREVER_S = 1e300  # ranks above any latency; two of them still have a mean


@dataclass(frozen=True, slots=True)
class Setting:
    """What was simulated."""

    deployment: Deployment
    replicas: int
    rate_per_s: float  # offered to the fleet
    closed: bool = False  # by users who wait for their answers: then the rate is only what was expected


def measure(collected: Collector, setting: Setting, verdict: Verdict, reason: str, cut: int) -> RunResult:
    """The figures of the requests from number `cut` up to the first that has not ended."""
    deployment, complete = setting.deployment, collected.num_complete
    scenario = deployment.scenario
    samples = {metric: collected.latencies_s[metric][cut:complete].copy() for metric in METRICS}
    percentile, unfinished = scenario.slo.percentile, collected.unfinished[cut:complete]
    targets: dict[Metric, float] = dict(scenario.slo.targets_s)
    begin_s = float(collected.arrival_s[cut]) if complete > cut else 0.0
    duration_s = max(collected.now_s - begin_s, 0.0)
    ended = (collected.finish_s >= begin_s) & (collected.finish_s <= collected.now_s)
    prompt_tokens, output_tokens = collected.tokens[ended].sum(axis=0).tolist()
    rates = [count / duration_s if duration_s > 0 else 0.0 for count in (ended.sum(), prompt_tokens, output_tokens)]
    return RunResult(
        verdict=verdict,
        reason=reason,
        replicas=setting.replicas,
        gpus=setting.replicas * deployment.gpus_per_replica,
        offered_rate_per_s=collected.num_arrived / collected.now_s if setting.closed else setting.rate_per_s,
        num_requests=complete - cut,
        warmup_requests=cut,
        duration_s=duration_s,
        latencies={metric: _latency(metric, samples[metric], unfinished, percentile) for metric in METRICS},
        targets_s=targets,
        percentile=percentile,
        attainment=_attainment(samples, targets, unfinished) if targets else None,
        request_rate_per_s=float(rates[0]),
        prompt_tokens_per_s=float(rates[1]),
        output_tokens_per_s=float(rates[2]),
        occupancy=collected.usage.occupancy(setting.replicas, collected.now_s, collected.num_finished),
        badge=deployment.badge,
        seed=scenario.seed,
        notes=deployment.notes,
        samples_s=samples,
    )


def _latency(metric: Metric, samples: FloatArray, unfinished: BoolArray, percentile: float) -> Latency:
    """The figures of finished requests; the percentile that the targets speak of is one of all."""
    known = samples[~np.isnan(samples)]
    p50, p90, p99 = (percentile_estimate(known, percent) for percent in (50, 90, 99))
    return Latency(metric, mean_estimate(known), p50, p90, p99, _of_all(samples, unfinished, percentile))


def _of_all(samples: FloatArray, unfinished: BoolArray, percentile: float) -> Estimate:
    """A percentile in which a request that never got its answer counts as one that took forever."""
    if not unfinished.any():
        return percentile_estimate(samples[~np.isnan(samples)], percentile)
    forever = np.where(unfinished, FOREVER_S, samples)
    found = percentile_estimate(forever[~np.isnan(forever)], percentile)
    return Estimate(*(math.inf if value_s > FOREVER_S / 1e9 else value_s for value_s in astuple(found)))


def _attainment(samples: dict[Metric, FloatArray], targets_s: dict[Metric, float], unfinished: BoolArray) -> Estimate:
    """A request without a token after its first keeps a target on TPOT: NaN is not above it."""
    kept = ~np.any([samples[metric] > target_s for metric, target_s in targets_s.items()], axis=0) & ~unfinished
    return share_estimate(kept.astype(np.float64))
