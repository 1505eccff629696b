"""The highest offered rate at which a fleet as it is keeps its targets, with an interval.

Each seed has its own arrivals and lengths, and a higher rate squeezes the same draws together; so for one seed the
question has one answer, found by bisection on steady states, and for independent seeds the answers are independent
values of one quantity: their mean is the capacity and Student's t its interval. No single lucky draw decides, and a
rate without a steady state counts as not kept. A common error of all step times is not chance: for it the search is
done again with every pass slower and faster.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from roofline.errors import InfeasibleError, InputError
from simulator.deployment import Deployment, resolve
from simulator.output.results import Capacity, Estimate, RunResult, SeedRate
from simulator.output.wording import shortfall
from simulator.parallel import ALONE, Workers, ordered
from simulator.planning.criteria import is_placed, keeps
from simulator.planning.doubt import TRIFLE, step_time_doubt
from simulator.planning.feasible import check_feasible, missed_alone
from simulator.planning.interval import independent_mean
from simulator.planning.probes import saturated_rate_per_s, unloaded
from simulator.planning.steady import steady_run
from simulator.scenario import Scenario

FINE = 0.02  # how closely a seed's rate is found, as a fraction of it
SEEDS = 5
FAR, NEAR = 0.25, 0.03  # first step of a search, as a fraction of where it begins: from a guess, from another seed
LEAST = 1 / 1000  # of the rate the fleet could serve: below it the search ends

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How many seeds are asked, by how many processes, and whether step times are doubted."""

    seeds: int = SEEDS
    workers: Workers = ALONE
    doubt: bool = True

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"seeds is {self.seeds}; give at least 1, and 2 or more for an interval.")


@dataclass(frozen=True, slots=True, eq=False)
class Bracket:
    """The highest rate that one seed kept and the lowest above it that it did not."""

    kept: RunResult
    missed: RunResult

    @property
    def rate_per_s(self) -> float:
        """The middle, in proportion."""
        return math.sqrt(self.kept.offered_rate_per_s * self.missed.offered_rate_per_s)

    @property
    def resolution(self) -> float:
        """How far the rate may be from the middle, as a fraction of it."""
        return math.sqrt(self.missed.offered_rate_per_s / self.kept.offered_rate_per_s) - 1

    def of_seed(self, seed: int) -> SeedRate:
        """Without the runs."""
        return SeedRate(seed, self.rate_per_s, self.resolution)


def capacity(scenario: Scenario, say: Say = lambda sentence: None, effort: Effort | None = None) -> Capacity:
    """The capacity of the scenario's fleet; `say` is told in a sentence of every rate that has been simulated.

    InputError without targets, InfeasibleError where even a request alone misses one.
    """
    effort = effort or Effort()
    deployment = resolve(scenario)
    check_feasible(deployment, unloaded(deployment))
    first = search(deployment, scenario.fleet.replicas * saturated_rate_per_s(deployment) * 0.8, FAR, say)
    shares = [number / effort.seeds for number in range(1, effort.seeds)]  # so that no two search the same rates
    others = [(scenario.seed + n, first.rate_per_s * (1 + FINE * share)) for n, share in enumerate(shares, 1)]
    by_seed = (first.of_seed(scenario.seed), *ordered(partial(_of_seed, scenario), others, effort.workers))
    for found in by_seed:
        say(f"seed {found.seed}: {found.rate_per_s:.4g} requests/s")
    rate = _rate(by_seed)
    span, words = _doubted(deployment, first, rate, effort, say)
    return Capacity(
        scenario=scenario, replicas=scenario.fleet.replicas, gpus=first.kept.gpus, rate=rate, by_seed=by_seed,
        with_doubt=span, doubt=words, kept=first.kept, missed=first.missed,
    )  # fmt: skip


def search(deployment: Deployment, start_per_s: float, step: float, say: Say = lambda sentence: None) -> Bracket:
    """Bisection from a guess: steps that double until the rate lies between two, then halves down to `FINE`."""
    scenario = deployment.scenario
    replicas, least_per_s = scenario.fleet.replicas, start_per_s * LEAST

    def trial(rate_per_s: float) -> RunResult:
        result = steady_run(deployment.at_rate(rate_per_s), replicas, is_placed)
        say(f"{rate_per_s:.4g} requests/s: {'kept' if keeps(result) else shortfall(result)}")
        return result

    result = trial(start_per_s)
    rising = keeps(result)
    while True:
        other = trial(result.offered_rate_per_s * (1 + step if rising else 1 / (1 + step)))
        if keeps(other) != rising:
            break
        if other.offered_rate_per_s < least_per_s:
            raise InfeasibleError(f"{shortfall(other)}, at a thousandth of the load it could serve; relax the target.")
        result, step = other, 2 * step
    low, high = (result, other) if rising else (other, result)
    while high.offered_rate_per_s > (1 + FINE) * low.offered_rate_per_s:
        middle = trial(math.sqrt(low.offered_rate_per_s * high.offered_rate_per_s))
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return Bracket(low, high)


def _of_seed(scenario: Scenario, where: tuple[int, float]) -> SeedRate:
    seed, start_per_s = where
    deployment = resolve(scenario.model_copy(update={"seed": seed}))
    return search(deployment, start_per_s, NEAR).of_seed(seed)


def _rate(by_seed: tuple[SeedRate, ...]) -> Estimate:
    """The mean over the seeds; its interval is never narrower than what the search tells apart."""
    estimate = independent_mean(np.array([found.rate_per_s for found in by_seed]))
    apart = estimate.value * max(found.resolution for found in by_seed) / math.sqrt(len(by_seed))
    return Estimate(
        estimate.value, max(0.0, min(estimate.low, estimate.value - apart)), max(estimate.high, estimate.value + apart)
    )


def _doubted(
    deployment: Deployment, first: Bracket, rate: Estimate, effort: Effort, say: Say
) -> tuple[tuple[float, float] | None, str]:
    """The interval stretched by what the first seed's rate becomes with every pass slower or faster."""
    size, source = step_time_doubt(deployment, first.kept)
    if not effort.doubt or size < TRIFLE:
        return None, f"{source}: not reckoned with" if size >= TRIFLE else f"{source}: none"
    say(f"Once more with passes {size:.0%} slower and faster")
    ends = []
    for factor in (1 + size, 1 - size):
        scaled = deployment.slowed(factor)
        beyond_any = missed_alone(deployment.scenario.slo.targets_s, unloaded(scaled)) is not None
        found = 0.0 if beyond_any else search(scaled, first.rate_per_s / factor, NEAR * 2, say).rate_per_s
        ends.append(found / first.rate_per_s)
    low, high = (rate.low, rate.high) if math.isfinite(rate.high) else (rate.value, rate.value)
    span = (min(low, low * ends[0]), max(high, high * ends[1]))
    return span, f"step times {size:.1%} shorter or longer: {source}"
