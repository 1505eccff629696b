"""What a simulation or a plan answers, as plain values: seconds, tokens, dollars; every figure says what it counts.

`Estimate` is a figure with its 95 % confidence interval. Nothing in here is measured from a transient: a `RunResult`
whose verdict is not "steady" carries figures only as what was seen so far.
"""

from dataclasses import dataclass
from typing import Literal

from roofline.step_time import FloatArray
from simulator.scenario import Scenario

Verdict = Literal["steady", "unstable", "undecided"]
Badge = Literal["calibrated", "transferred", "analytic"]
Metric = Literal["ttft_s", "tpot_s", "e2e_s"]
Constraint = Literal["kv_memory", "sequence_limit", "compute", "memory_bandwidth", "overhead", "link", "queueing"]
METRICS: tuple[Metric, ...] = ("ttft_s", "tpot_s", "e2e_s")
CONFIDENCE = 0.95  # of every interval


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the interval that holds the true one with 95 % confidence; infinite where n is too small to tell."""

    value: float
    low: float
    high: float

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width as a fraction of the figure."""
        return (self.high - self.low) / 2 / self.value if self.value else float("inf")


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one metric; `at_target` is the percentile that the targets speak of."""

    metric: Metric
    mean: Estimate
    p50: Estimate
    p90: Estimate
    p99: Estimate
    at_target: Estimate


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How a replica spends its time on average, as fractions of 0 to 1; outputs, never inputs."""

    busy: float  # of the time with a forward pass under way
    kv_mean: float  # of the KV blocks, over busy time
    kv_peak: float
    sequences_mean: float  # of max_num_seqs, over busy time
    waiting: float  # of busy time with requests waiting
    waiting_for_kv: float  # of busy time with requests waiting and the KV cache (nearly) full
    waiting_for_slot: float  # of busy time with requests waiting and max_num_seqs running
    mean_running: float  # requests on one replica, over busy time
    preemptions_per_request: float
    bound: dict[str, float]  # of busy time, by what the passes wait for: compute, memory_bandwidth, link, overhead
    extrapolated: float = 0.0  # of busy time in passes beyond what the step-time profile was measured on


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """One simulation of the fleet, or as much of it as its steady state; every figure is of the fleet unless it says.

    `samples_s` are the latencies behind the figures in order of arrival, warm-up cut, NaN where a request has none.
    """

    verdict: Verdict
    reason: str  # why that verdict, in words
    replicas: int
    gpus: int
    offered_rate_per_s: float
    num_requests: int  # in the figures, the warm-up cut
    warmup_requests: int  # cut
    duration_s: float  # of virtual time behind the figures
    latencies: dict[Metric, Latency]
    targets_s: dict[Metric, float]  # what the scenario asks of each metric's percentile
    percentile: float  # the one that the targets and `Latency.at_target` speak of
    attainment: Estimate | None  # fraction of requests that keep every target; None without targets
    request_rate_per_s: float
    output_tokens_per_s: float
    prompt_tokens_per_s: float
    occupancy: Occupancy
    badge: Badge
    seed: int
    notes: tuple[str, ...]
    samples_s: dict[Metric, FloatArray]

    @property
    def is_steady(self) -> bool:
        """True where the figures are those of a steady state."""
        return self.verdict == "steady"

    @property
    def asked(self) -> dict[Metric, Latency]:
        """The latencies with a target; all where there is none."""
        return {metric: self.latencies[metric] for metric in self.targets_s} or self.latencies

    @property
    def missed(self) -> tuple[Metric, ...]:
        """Metrics whose percentile is not shown to be below its target: its interval's upper end is above."""
        return tuple(m for m, target_s in self.targets_s.items() if not self.latencies[m].at_target.high < target_s)

    @property
    def goodput_per_s(self) -> float | None:
        """Requests per second of the fleet that keep every target; None without targets."""
        return None if self.attainment is None else self.attainment.value * self.request_rate_per_s

    @property
    def meets_targets(self) -> bool:
        """True where a steady state keeps every target, even at the upper end of its interval."""
        return self.is_steady and not self.missed


@dataclass(frozen=True, slots=True)
class Money:
    """US dollars at three prices of a GPU hour."""

    low: float
    typical: float
    high: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What the fleet costs at the offered load; None where no price is known for the accelerator."""

    per_gpu_hour: Money
    per_hour: Money
    per_month: Money  # of 730 hours
    per_million_output_tokens: Money
    per_million_tokens: Money  # prompt and output together
    source: str


@dataclass(frozen=True, slots=True)
class ReplicaInterval:
    """Fewest and most replicas that the question may need; `high` is None where even the limit may not be enough."""

    low: int
    high: int | None
    includes: str  # what kinds of doubt, in words


@dataclass(frozen=True, slots=True)
class Binding:
    """What keeps the fleet from being smaller, and the figures that show it."""

    constraint: Constraint
    evidence: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The fewest replicas that meet the targets at the offered load.

    `trials` are all simulated fleets by replica count; `chosen` is one of them, `one_fewer` the next smaller one.
    """

    scenario: Scenario
    replicas: int
    gpus_per_replica: int
    chosen: RunResult
    one_fewer: RunResult | None  # None where one replica is enough
    why_not_fewer: str
    interval: ReplicaInterval
    binding: Binding
    cost: Cost | None
    trials: dict[int, RunResult]
    assumptions: tuple[str, ...]  # what was assumed and not asked
    benchmark_command: str  # what would check the prediction on the real engine

    @property
    def gpus(self) -> int:
        """GPUs of the fleet."""
        return self.replicas * self.gpus_per_replica

    @property
    def scope(self) -> str:
        """As in `40 GPUs = 5 replicas x TP8`."""
        return scope_text(self.replicas, self.gpus_per_replica)


@dataclass(frozen=True, slots=True, eq=False)
class LoadCurve:
    """Latency against offered load for a fleet of fixed size, in order of load; unsteady points say so."""

    replicas: int
    gpus: int
    points: tuple[RunResult, ...]

    @property
    def max_sustainable_rate_per_s(self) -> float | None:
        """The highest offered rate of the points, below the first one that is not steady; None where none is."""
        best = None
        for point in self.points:
            if not point.is_steady:
                break
            best = point.offered_rate_per_s
        return best


@dataclass(frozen=True, slots=True)
class SeedRate:
    """The highest rate that one seed's arrivals and lengths allowed, found to within `resolution` of itself."""

    seed: int
    rate_per_s: float
    resolution: float


@dataclass(frozen=True, slots=True, eq=False)
class Capacity:
    """The highest offered rate at which a fleet of fixed size keeps the targets, over seeds of their own.

    `kept` and `missed` are the runs of the scenario's own seed on both sides of its rate.
    """

    scenario: Scenario
    replicas: int
    gpus: int
    rate: Estimate  # requests per second of the fleet; the interval is the simulation's chance
    by_seed: tuple[SeedRate, ...]
    with_doubt: tuple[float, float] | None  # the interval if a common error of all step times is reckoned with
    doubt: str  # which error, in words
    kept: RunResult
    missed: RunResult

    @property
    def rate_per_s(self) -> float:
        """Requests per second of the fleet."""
        return self.rate.value

    @property
    def rate_per_gpu_s(self) -> float:
        """Requests per second a GPU."""
        return self.rate.value / self.gpus


def scope_text(replicas: int, gpus_per_replica: int) -> str:
    """As in `40 GPUs = 5 replicas x TP8`."""
    gpus = replicas * gpus_per_replica
    return f"{gpus} GPU{'s' * (gpus != 1)} = {replicas} replica{'s' * (replicas != 1)} x TP{gpus_per_replica}"
