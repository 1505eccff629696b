"""One question to one fleet: run it until its steady state is shown and the answer is sure, or say that there is none.

The run looks at itself at growing checkpoints. It ends as "steady" once nothing drifts and the caller's question is
decided, as "unstable" once the backlog grows without slowing down, and as "undecided" at its limit. The checkpoints are
few, so that looking often does not turn chance into certainty.
"""

import math
from collections.abc import Callable

import numpy as np

from engine.core.workload import Workload, check_fits
from roofline.errors import InputError
from simulator.deployment import Deployment
from simulator.fleet.cluster import RunOptions, simulate
from simulator.fleet.conversations import Conversations
from simulator.output.collector import Both, Collector
from simulator.output.observer import Observer
from simulator.output.results import RunResult, Verdict
from simulator.planning.bound import probe
from simulator.planning.criteria import is_precise
from simulator.planning.measure import Setting, measure
from simulator.planning.steadiness import (
    STAYS,
    Growth,
    common_warmup,
    drift,
    growth,
    has_turned_over,
    overloaded,
    stays,
)
from simulator.workload_source import load_of, offered_rate_per_s

CHECKPOINT_RATIO = 1.5
SPARE_ARRIVALS = 1.25  # arrivals for each request that may end: a fleet is not watched while it empties

Decided = Callable[[RunResult], bool]
Progress = Callable[[int], None]


def steady_run(
    deployment: Deployment,
    replicas: int,
    decided: Decided = is_precise,
    progress: Progress | None = None,
    recorder: Observer | None = None,
) -> RunResult:
    """Simulate `replicas` replicas under the scenario's load until `decided(result)`.

    `decided` is asked at every checkpoint, of results that are steady or not yet; `progress(n)` is told of every n
    requests more; `recorder` sees the whole run. InputError for a request that the engine could never serve.
    """
    load = longest_load(deployment)
    watch = _Watch(deployment, replicas, decided)
    if known := isinstance(load, Workload):
        arrival_s = load.requests["arrival_s"].to_numpy(dtype=float)
    else:
        arrival_s = np.full(len(load), np.inf)
    collector = Collector(
        arrival_s, deployment.engine,
        lambda work: probe(deployment.step_time, work), watch.enough, watch.checkpoints,
    )  # fmt: skip
    options = RunOptions(
        progress=progress, record_token_times=recorder is not None, on_arrival=None if known else collector.on_arrival
    )
    observer = collector if recorder is None else Both(recorder, collector)
    simulate(deployment.fleet(replicas), deployment.step_time, load, observer, options)
    return watch.result(collector)


def longest_load(deployment: Deployment) -> Workload | Conversations:
    """All requests that a run may need; InputError for one that the engine could never serve."""
    scenario = deployment.scenario
    count = math.ceil(scenario.run.max_requests * SPARE_ARRIVALS)
    load = load_of(scenario.workload, deployment.recorded, count, scenario.seed, deployment.engine.max_model_len)
    try:
        check_fits(load if isinstance(load, Workload) else load.workload, deployment.engine)
    except InputError as error:
        raise type(error)(f"workload: {error} (Lengths as lognormal:MEAN:CV:LONGEST have a bound.)") from error
    return load


def longest_workload(deployment: Deployment) -> Workload:
    """The same requests, whoever sends them when."""
    load = longest_load(deployment)
    return load if isinstance(load, Workload) else load.workload


class _Watch:
    """Looks at a run at each checkpoint, and remembers what it saw."""

    def __init__(self, deployment: Deployment, replicas: int, decided: Decided) -> None:
        run = deployment.scenario.run
        rate_per_s = offered_rate_per_s(deployment.scenario.workload, deployment.recorded)
        self._setting = Setting(deployment, replicas, rate_per_s, closed=deployment.scenario.workload.users is not None)
        self._decided = decided
        self._min_requests = run.min_requests
        self._growths: list[Growth] = []
        self._found: RunResult | None = None
        self.checkpoints = [max(100, run.min_requests // 4)]
        while self.checkpoints[-1] < run.max_requests:
            self.checkpoints.append(min(run.max_requests, math.ceil(self.checkpoints[-1] * CHECKPOINT_RATIO)))

    def enough(self, collected: Collector) -> bool:
        """True where the run may end."""
        earlier = [g for g in self._growths if 2 * g.elapsed_s < 1.05 * collected.now_s]
        if overloaded(collected, earlier[-1] if earlier else None, self._setting.rate_per_s):
            now = growth(collected)
            self._found = self._result(collected, "unstable", _overload_in_words(now, self._setting.rate_per_s))
            return True
        if has_turned_over(collected):
            self._growths.append(growth(collected))
        self._found = self._if_steady(collected)
        return self._decided(self._found)

    def result(self, collected: Collector) -> RunResult:
        """What the run has shown by its end."""
        return self._found or self._if_steady(collected)

    def _if_steady(self, collected: Collector) -> RunResult:
        complete, cut = collected.num_complete, common_warmup(collected)
        if complete - cut < self._min_requests:
            reason = f"{max(0, complete - cut):,} requests after the warm-up are fewer than {self._min_requests:,}"
            return self._result(collected, "undecided", reason)
        if (span := stays(collected, cut)) < STAYS:
            needed = math.ceil(complete * STAYS / max(span, 0.1))
            reason = f"the run spans {span:.1f} times a request's stay and needs {STAYS:g} (about {needed:,} requests)"
            return self._result(collected, "undecided", reason)
        moving = drift(collected, cut)
        if moving is not None:
            return self._result(collected, "undecided", moving)
        return self._result(collected, "steady", f"nothing drifts after a warm-up of {cut:,} requests", cut)

    def _result(self, collected: Collector, verdict: Verdict, reason: str, cut: int = 0) -> RunResult:
        return measure(collected, self._setting, verdict, reason, cut)


def _overload_in_words(now: Growth, rate_per_s: float) -> str:
    return (
        f"the backlog grows by {now.rate_per_s:.3g} requests/s without slowing down: the fleet serves "
        f"{rate_per_s - now.rate_per_s:.4g} of the {rate_per_s:.4g} requests/s that arrive"
    )
