"""Several scenarios side by side, and how sure their differences are.

Each is simulated with the same seeds, and a seed draws the same arrivals and lengths for every scenario of the same
workload; so the difference is taken seed by seed, where the luck of the draw falls out, and Student's t over the seeds
says if what is left is more than chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from roofline.errors import InputError
from roofline.step_time import FloatArray
from simulator.deployment import resolve
from simulator.output.results import Estimate, Metric, RunResult
from simulator.parallel import ALONE, Workers, ordered
from simulator.planning.cost import cost_of
from simulator.planning.criteria import is_clear
from simulator.planning.interval import independent_mean
from simulator.planning.steady import steady_run
from simulator.scenario import Scenario

SEEDS = 5

Figure = Callable[[Scenario, RunResult], float | None]


def _at_target(metric: Metric) -> Figure:
    return lambda scenario, result: result.latencies[metric].at_target.value


def _dollars(scenario: Scenario, result: RunResult) -> float | None:
    cost = cost_of(scenario, result)
    return None if cost is None else cost.per_million_output_tokens.typical


FIGURES: dict[str, Figure] = {
    "mean_ttft_s": lambda scenario, result: result.latencies["ttft_s"].mean.value,
    "percentile_ttft_s": _at_target("ttft_s"),  # the percentile that the first scenario's targets speak of
    "mean_tpot_s": lambda scenario, result: result.latencies["tpot_s"].mean.value,
    "percentile_tpot_s": _at_target("tpot_s"),
    "mean_e2e_s": lambda scenario, result: result.latencies["e2e_s"].mean.value,
    "percentile_e2e_s": _at_target("e2e_s"),
    "attainment": lambda scenario, result: None if result.attainment is None else result.attainment.value,
    "goodput_per_s": lambda scenario, result: result.goodput_per_s,
    "output_tokens_per_gpu_s": lambda scenario, result: result.output_tokens_per_s / result.gpus,
    "usd_per_million_output_tokens": _dollars,
}


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """One scenario: a run a seed, its figures over the seeds, and their relative differences from the first's.

    A figure is missing where a seed has none, and everywhere where a seed has no steady state.
    """

    scenario: Scenario
    runs: tuple[RunResult, ...]
    figures: dict[str, Estimate]
    differences: dict[str, Estimate]  # this / first - 1; empty for the first

    @property
    def is_steady(self) -> bool:
        """True where every seed has a steady state."""
        return all(run.is_steady for run in self.runs)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Scenarios under the same seeds; the first is what the others are compared with."""

    seeds: tuple[int, ...]
    percentile: float
    contenders: tuple[Contender, ...]


def compare(
    scenarios: Sequence[Scenario],
    seeds: int = SEEDS,
    workers: Workers = ALONE,
    done: Callable[[int], None] = lambda count: None,
) -> Comparison:
    """Simulate every scenario with as many seeds as `seeds`, from the first scenario's on; `done(n)` counts the runs.

    InputError for fewer than two scenarios or seeds, or where two speak of different percentiles.
    """
    if len(scenarios) < 2 or seeds < 2:
        raise InputError(
            f"{len(scenarios)} scenario(s) and {seeds} seed(s) are given; a comparison needs two of each, or more."
        )
    percentile = scenarios[0].slo.percentile
    for scenario in scenarios:
        if scenario.slo.percentile != percentile:
            raise InputError(
                f"slo.percentile is {percentile:g} in {scenarios[0].name!r} and {scenario.slo.percentile:g} in "
                f"{scenario.name!r}; set both to the same."
            )
    numbers = tuple(scenarios[0].seed + n for n in range(seeds))
    tasks = [scenario.model_copy(update={"seed": seed}) for scenario in scenarios for seed in numbers]
    runs = ordered(_run, tasks, workers, done)
    contenders: list[Contender] = []
    for n, scenario in enumerate(scenarios):
        own = Contender(scenario, tuple(runs[n * seeds : (n + 1) * seeds]), {}, {})
        contenders.append(_measured(own, contenders[0] if contenders else None))
    return Comparison(numbers, percentile, tuple(contenders))


def _run(scenario: Scenario) -> RunResult:
    return steady_run(resolve(scenario), scenario.fleet.replicas, is_clear)


def _measured(own: Contender, first: Contender | None) -> Contender:
    figures, differences = {}, {}
    for name in FIGURES:
        values = _values(own, name)
        if values is not None:
            figures[name] = independent_mean(values)
            others = None if first is None else _values(first, name)
            if others is not None and (others != 0).all():
                differences[name] = independent_mean(values / others - 1)
    return replace(own, figures=figures, differences=differences)


def _values(contender: Contender, name: str) -> FloatArray | None:
    """A figure's values, one a seed; None where it is not known for each."""
    values = [FIGURES[name](contender.scenario, run) for run in contender.runs]
    if not contender.is_steady or any(value is None or np.isnan(value) for value in values):
        return None
    return np.array(values, dtype=np.float64)
