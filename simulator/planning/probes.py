"""Two short runs that bracket a replica: alone with each request, and never out of work."""

import numpy as np

from roofline.step_time import FloatArray
from simulator.deployment import Deployment
from simulator.fleet.cluster import simulate
from simulator.output.collector import Collector
from simulator.output.results import METRICS, Metric
from simulator.planning.steady import longest_workload

PROBE_REQUESTS = 1_000
ALONE_S = 1e5  # between two requests: longer than any takes
CROWDS = 4  # requests of the saturated run, as a multiple of what a replica runs at once


def unloaded(deployment: Deployment) -> dict[Metric, float]:
    """Each metric's percentile of the scenario, in seconds, of requests that have a replica for themselves.

    No fleet of such replicas does better, however large.
    """
    workload = longest_workload(deployment).head(PROBE_REQUESTS)
    arrival_s = ALONE_S * np.arange(1.0, 1.0 + len(workload))
    collected = _collect(deployment, arrival_s)
    simulate(deployment.alone(), deployment.step_time, workload.with_arrivals(arrival_s), collected)
    percent = deployment.scenario.slo.percentile
    latencies = {metric: collected.latencies_s[metric] for metric in METRICS}
    known = {metric: values[~np.isnan(values)] for metric, values in latencies.items()}
    return {metric: float(np.percentile(values, percent)) for metric, values in known.items() if len(values)}


def saturated_rate_per_s(deployment: Deployment) -> float:
    """Requests per second that one replica ends while it has more waiting than it can run; a guess for a search."""
    count = max(PROBE_REQUESTS // 4, CROWDS * deployment.engine.max_num_seqs)
    workload = longest_workload(deployment).head(count)
    arrival_s = np.zeros(len(workload))
    collected = _collect(deployment, np.append(arrival_s, np.inf))
    simulate(deployment.alone(), deployment.step_time, workload.with_arrivals(arrival_s), collected)
    ends_s = np.sort(collected.finish_s[:-1])
    first, last = len(ends_s) // 5, len(ends_s) * 4 // 5
    return float((last - first) / (ends_s[last] - ends_s[first])) if ends_s[last] > ends_s[first] else float("inf")


def _collect(deployment: Deployment, arrival_s: FloatArray) -> Collector:
    return Collector(arrival_s, deployment.engine, lambda work: (None, True), lambda _: False, ())
