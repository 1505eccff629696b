"""The plan: the fewest replicas that meet the targets at the offered load, and how sure, why, and for how much.

A number of replicas is accepted only where a steady state keeps every target at the upper end of its 95 % interval.
The same seed drives every fleet, so that fleets differ by their size and not by their luck.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from roofline.errors import InfeasibleError
from simulator.deployment import TRANSFER_DOUBT, Deployment, resolve
from simulator.output.results import Binding, Metric, Plan, ReplicaInterval, RunResult
from simulator.output.wording import replicas_in_words, shortfall
from simulator.planning.benchmark import benchmark_command
from simulator.planning.binding import binding
from simulator.planning.cost import cost_of
from simulator.planning.criteria import is_settled
from simulator.planning.feasible import check_feasible, missed_alone
from simulator.planning.probes import saturated_rate_per_s, unloaded
from simulator.planning.search import smallest
from simulator.planning.steady import steady_run
from simulator.scenario import Scenario
from simulator.workload_source import offered_rate_per_s

RARE = 0.01  # of the busy time
TRIFLE = 0.005  # of the step time: less doubt moves no fleet by a replica

Say = Callable[[str], None]
Count = Callable[[int], None]


@dataclass(slots=True)
class Trials:
    """Simulated fleets of one deployment by their size; `say` is told of each, `count` of every n requests more."""

    deployment: Deployment
    say: Say
    count: Count
    results: dict[int, RunResult] = field(default_factory=dict)

    def meets(self, replicas: int) -> bool:
        """Whether so many replicas keep the targets."""
        if replicas not in self.results:
            result = self.results[replicas] = steady_run(self.deployment, replicas, is_settled, self.count)
            outcome = f"{replicas_in_words(replicas)}: enough" if result.meets_targets else shortfall(result)
            self.say(f"{outcome} ({result.num_requests:,} requests)")
        return self.results[replicas].meets_targets

    def fewest(self, guess: int) -> int | None:
        """The fewest replicas that keep the targets; None if the scenario's limit does not."""
        return smallest(self.meets, guess, self.deployment.scenario.fleet.max_replicas)


MEAN_LENGTHS = (
    "The command that checks it gives every request the workload's mean lengths, as `vllm bench serve` draws no spread "
    "like it: where lengths vary, it measures shorter tails than predicted here."
)


def plan(
    scenario: Scenario,
    say: Say = lambda sentence: None,
    count: Count = lambda num_requests: None,
    found: Callable[[Plan], None] = lambda plan: None,
) -> Plan:
    """Size the fleet. InputError for a scenario that cannot be simulated, InfeasibleError where nothing meets it.

    `say` is told in a sentence of every fleet that has been simulated, `count` of every n requests more in between.
    `found` is handed the plan as soon as it stands, with an interval that counts the simulation's chance alone.
    """
    deployment = resolve(scenario)
    alone_s = unloaded(deployment)
    check_feasible(deployment, alone_s)
    rate_per_s = offered_rate_per_s(scenario.workload, deployment.recorded)
    trials = Trials(deployment, say, count)
    replicas = trials.fewest(math.ceil(rate_per_s / saturated_rate_per_s(deployment)))
    if replicas is None:
        raise InfeasibleError(_beyond_limit(trials, rate_per_s))
    chosen, fewer = trials.results[replicas], trials.results.get(replicas - 1)
    first = Plan(
        scenario=scenario,
        replicas=replicas,
        gpus_per_replica=deployment.gpus_per_replica,
        chosen=chosen,
        one_fewer=fewer,
        why_not_fewer=f"{shortfall(fewer)}." if fewer else "One replica is the least there is.",
        interval=_chance(trials, replicas),
        binding=_binding(chosen, fewer, alone_s),
        cost=cost_of(scenario, chosen),
        trials=trials.results,
        assumptions=assumptions(deployment, chosen),
        benchmark_command=benchmark_command(deployment, chosen),
    )
    found(first)
    return replace(first, interval=_interval(trials, replicas))


def _chance(trials: Trials, replicas: int) -> ReplicaInterval:
    """The answers if the simulation's chance alone had fallen otherwise."""
    return ReplicaInterval(_least(trials, replicas), replicas, "the simulation's chance (95 %)")


def _interval(trials: Trials, replicas: int) -> ReplicaInterval:
    """The answers if the simulation's chance, and a common error of all step times, had fallen otherwise."""
    doubt, source = _doubt(trials.deployment, trials.results[replicas])
    if doubt < TRIFLE:
        return ReplicaInterval(_least(trials, replicas), replicas, f"the simulation's chance (95 %); {source}: none")
    trials.say(f"Once more with passes {doubt:.0%} faster and slower")
    fast, slow = (Trials(trials.deployment.slowed(scale), trials.say, trials.count) for scale in (1 - doubt, 1 + doubt))
    fewest = fast.fewest(round(replicas * (1 - doubt))) or replicas
    beyond_any = missed_alone(trials.deployment.scenario.slo.targets_s, unloaded(slow.deployment)) is not None
    most = None if beyond_any else slow.fewest(round(replicas * (1 + doubt)))
    low = min(_least(trials, replicas), _least(fast, fewest))
    includes = (
        f"the simulation's chance (95 %), and step times {doubt:.1%} shorter or longer: {source}; not the forecast of "
        "the load"
    )
    return ReplicaInterval(low, None if most is None else max(replicas, most), includes)


def _doubt(deployment: Deployment, result: RunResult) -> tuple[float, str]:
    """The common error of step times to reckon with: more, the more of the time lies beyond the measurements."""
    beyond = result.occupancy.extrapolated
    known, extrapolated = deployment.step_time_doubt, TRANSFER_DOUBT * beyond
    if extrapolated <= known:
        return known, deployment.doubt_source
    return extrapolated, f"an assumed error, as {beyond:.0%} of the busy time lies beyond the profile's measurements"


def _least(trials: Trials, replicas: int) -> int:
    """The smallest fleet tried that may be enough, if not as certain as `replicas` is."""
    return min([replicas, *(n for n, result in trials.results.items() if _may_do(result))])


def _may_do(result: RunResult) -> bool:
    """True where a fleet that was not accepted may yet be enough: no target is clearly missed."""
    missed = (result.latencies[metric].at_target.low > target_s for metric, target_s in result.targets_s.items())
    return result.verdict != "unstable" and not any(missed)


def _binding(chosen: RunResult, fewer: RunResult | None, alone_s: dict[Metric, float]) -> Binding:
    if fewer is not None:
        return binding(fewer, alone_s)
    found = binding(chosen, alone_s)
    return Binding(found.constraint, f"Nothing binds, as one replica is enough; nearest is this: {found.evidence}")


def _beyond_limit(trials: Trials, rate_per_s: float) -> str:
    limit = trials.deployment.scenario.fleet.max_replicas
    result = trials.results[limit]
    need = math.ceil(rate_per_s / saturated_rate_per_s(trials.deployment))
    remedy = f"raise fleet.max_replicas (the load alone needs about {need})" if need > limit else "relax the target"
    return f"fleet.max_replicas is {limit}, and {shortfall(result)}; nearest change: {remedy}, or lower the load."


def assumptions(deployment: Deployment, result: RunResult) -> tuple[str, ...]:
    """What an answer takes for granted, in sentences; the notes of the step-time model first."""
    engine, scenario, beyond = deployment.engine, deployment.scenario, result.occupancy.extrapolated
    extrapolated = f"{beyond:.0%} of the busy time goes to passes larger than any that the profile was measured on."
    return (
        *deployment.notes,
        *([extrapolated] if beyond > RARE else []),
        f"Each replica has {engine.num_blocks:,} KV blocks of {engine.block_size} tokens, runs at most "
        f"{engine.max_num_seqs} requests at once and computes at most {engine.max_num_batched_tokens:,} tokens a pass.",
        f"Requests reach replicas by {scenario.fleet.router.replace('_', ' ')}; a replica fails only as faults say.",
        *([MEAN_LENGTHS] if benchmark_command(deployment, result).startswith("vllm ") else []),
        "The load is as steady as the workload says; peaks and growth beyond it need replicas of their own.",
    )
