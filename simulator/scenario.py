"""The scenario: the one file a user writes, checked field by field. Command line, dashboard and examples share it.

Reading turns every fault of the file into one `InputError` with the place, the value and the remedy. Latencies are in
milliseconds here, as people write them; everything behind this file counts in seconds.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from engine.core.lengths import Fixed, LengthDistribution, LogNormal, Uniform, parse_lengths
from engine.core.metrics import Slo
from roofline.formats import format_name
from simulator.scenario_base import Count, NotNegative, Positive, Rate, Section, checked
from simulator.scenario_fleet import Client, Faults, Fleet

Target = Literal["ttft_s", "tpot_s", "e2e_s"]

Format = Annotated[
    str, BeforeValidator(lambda value: checked(lambda: format_name(value)) if isinstance(value, str) else value)
]


class FixedLength(Section):
    """Every request has the same length; the shorthand is the number alone."""

    distribution: Literal["fixed"]
    tokens: Count
    """Tokens."""

    def build(self) -> LengthDistribution:
        """The distribution that draws."""
        return Fixed(self.tokens)


class UniformLength(Section):
    """Every whole number between two bounds is equally likely; the shorthand is `uniform:LOW:HIGH`."""

    distribution: Literal["uniform"]
    low: Count
    """Shortest length, in tokens."""
    high: Count
    """Longest length, in tokens."""

    def build(self) -> LengthDistribution:
        """The distribution that draws."""
        return Uniform(self.low, self.high)

    @model_validator(mode="after")
    def _check(self) -> Self:
        checked(self.build)
        return self


class LogNormalLength(Section):
    """A skewed distribution, as real prompts and answers have; the shorthand is `lognormal:MEAN:CV[:LONGEST]`."""

    distribution: Literal["lognormal"]
    mean: Positive
    """Mean length, in tokens."""
    cv: Positive
    """Standard deviation divided by the mean."""
    longest: Count | None = None
    """Bound, in tokens; the mean stays. It must be at least twice the mean."""

    def build(self) -> LengthDistribution:
        """The distribution that draws."""
        return LogNormal(self.mean, self.cv, self.longest)

    @model_validator(mode="after")
    def _check(self) -> Self:
        checked(self.build)
        return self


def _length_of(value: Any) -> Any:
    """A length from its shorthand; anything else goes on to the checks as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"distribution": "fixed", "tokens": value}
    if not isinstance(value, str):
        return value
    match checked(lambda: parse_lengths(value)):
        case Fixed(tokens):
            return {"distribution": "fixed", "tokens": tokens}
        case Uniform(low, high):
            return {"distribution": "uniform", "low": low, "high": high}
        case LogNormal(mean, cv, longest):
            return {"distribution": "lognormal", "mean": mean, "cv": cv, "longest": longest}
    raise AssertionError(value)


Length = Annotated[
    Annotated[FixedLength | UniformLength | LogNormalLength, Discriminator("distribution")], BeforeValidator(_length_of)
]


class TraceSource(Section):
    """Recorded requests: an Azure, BurstGPT or Mooncake file, or a trace folder."""

    file: Path
    """The file or folder; a relative path starts at the scenario's folder."""
    rate_scale: Positive = 1.0
    """Arrivals come this many times as fast as recorded. A run that needs more requests repeats the recording."""


class RateCurve(Section):
    """A rate that changes in equal parts of a period, over and over."""

    period_s: Positive = 86_400.0
    """Length of the period, in seconds."""
    factors: Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    """Relative rates of its parts; only their proportions count."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any(self.factors):
            raise ValueError("factors are all 0: at least one part of the period needs requests")
        return self


class Spike(Section):
    """Some time with a multiple of the rate."""

    at_s: NotNegative
    """When it begins, in seconds from the start of the run."""
    duration_s: Positive
    """How long it lasts."""
    factor: NotNegative
    """The rate is so many times as high."""


class Tenant(Section):
    """Some of the requests: a customer, or a class of service."""

    name: Annotated[str, Field(min_length=1)]
    """What budgets and results call it."""
    share: Positive = 1.0
    """Weight of its requests (with sessions: of its sessions) among those of all tenants."""
    priority: int = 0
    """Lower is served first, under engine.policy priority, and shed last."""
    prompt_tokens: Length | None = None
    """Length of its prompts; None: the workload's."""
    output_tokens: Length | None = None
    """Length of its answers; None: the workload's."""


class Users(Section):
    """A closed loop: each user sends a request (or holds a session), thinks, and sends the next."""

    count: Count
    """Users of the whole fleet."""
    think_time_s: NotNegative = 0.0
    """Mean of the pause before each request or session, in seconds; the pauses are exponential."""


class Sessions(Section):
    """Conversations: each turn comes after the answer to the one before, or not at all if there was none."""

    turns: Length
    """Requests of a session."""
    pause_s: NotNegative = 0.0
    """Mean pause between an answer and the next turn, in seconds, of a user who reads or an agent whose tool works."""
    context: Literal["grows", "fresh"] = "grows"
    """grows: each prompt begins with all that was said, and can be reused; fresh: prompts are independent."""
    common_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens with which every prompt of every session begins, such as instructions."""


class Workload(Section):
    """What the whole fleet is asked: a rate with distributions of lengths, or a recording."""

    request_rate: Rate | None = None
    """Requests per second that reach the fleet as a whole. With a trace: its lengths at this rate."""
    burstiness: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 1.0
    """Shape of the gaps between arrivals: 1 is a Poisson process, below 1 burstier, .inf constant spacing."""
    gaps: Literal["gamma", "weibull"] = "gamma"
    """Distribution of those gaps; burstiness is its shape."""
    rate_curve: RateCurve | None = None
    """How the rate changes in the course of a day, say; request_rate is then the mean."""
    spikes: tuple[Spike, ...] = ()
    """Times with a multiple of the rate."""
    prompt_tokens: Length | None = None
    """Length of the prompts."""
    output_tokens: Length | None = None
    """Length of the answers."""
    trace: TraceSource | None = None
    """Recorded requests, in place of the lengths."""
    users: Users | None = None
    """A crowd of users who each wait for an answer before they ask again, in place of a rate."""
    tenants: tuple[Tenant, ...] = ()
    """Kinds of requests, each with its share; without any all are alike."""
    sessions: Sessions | None = None
    """Requests come in conversations; prompt_tokens is then what is new in each turn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        lengths = (self.prompt_tokens, self.output_tokens)
        if self.trace is None:
            if (self.request_rate is None and self.users is None) or None in lengths:
                raise ValueError("give request_rate (or users), prompt_tokens and output_tokens, or a trace")
        elif any(lengths):
            raise ValueError("a trace brings its own lengths: remove prompt_tokens and output_tokens, or the trace")
        elif self.request_rate is not None and self.trace.rate_scale != 1.0:
            raise ValueError("request_rate and trace.rate_scale both set the rate: remove one")
        if any(tenant.prompt_tokens or tenant.output_tokens for tenant in self.tenants) and (
            self.trace is not None or self.sessions is not None or self.users is not None
        ):
            raise ValueError("lengths by tenant go with neither a trace nor users or sessions: remove one of them")
        if self.request_rate is None and (self.rate_curve is not None or self.spikes):
            raise ValueError("rate_curve and spikes change request_rate: give it, or remove them")
        if self.users is not None and self.request_rate is not None:
            raise ValueError("request_rate and users both set the load: remove one")
        if self.sessions is not None and self.users is None and self.request_rate is None:
            raise ValueError("sessions need request_rate or users: a trace's own times are those of single requests")
        return self


class Hardware(Section):
    """What one GPU of the fleet is."""

    accelerator: str
    """Name in the catalogue (`roofline show` lists them), or any name with a profile and engine.num_blocks."""
    catalogue: Path | None = None
    """A file of accelerator rows of your own, in the format of roofline/catalogue/accelerators.json."""


class Parallelism(Section):
    """How one replica spreads over GPUs."""

    tensor: Count = 1
    """GPUs that share each layer: a replica is that many GPUs."""


class StepTime(Section):
    """Where the time of a forward pass comes from."""

    profile: str | None = None
    """A fitted profile: a file, or the name of a shipped one. None: arithmetic on datasheet figures (analytic)."""
    transfer: bool = False
    """Use the profile for other hardware, another model or parallelism than it was fitted on; results say so."""


class EngineSettings(Section):
    """The engine's scheduler, under vLLM's names."""

    num_blocks: Annotated[int, Field(ge=2)] | None = None
    """KV blocks of a replica; None: what fits beside the weights."""
    block_size: Count = 16
    """Tokens a KV block holds."""
    max_num_seqs: Count = 256
    """Most requests that run at once on a replica."""
    max_num_batched_tokens: Count = 2048
    """Most tokens in one forward pass."""
    max_model_len: Annotated[int, Field(ge=2)] | None = None
    """Longest request, prompt and answer together, in tokens; None: the model's own limit."""
    enable_prefix_caching: bool = True
    """Reuse the KV blocks of equal prefixes (only a trace with block keys has any)."""
    enable_chunked_prefill: bool = True
    """Compute long prompts in chunks beside the running answers."""
    long_prefill_token_threshold: Annotated[int, Field(ge=0)] = 0
    """Longest chunk of a prompt, in tokens; 0: the token budget alone."""
    async_scheduling: bool = False
    """Schedule a pass while the one before is running."""
    policy: Literal["fcfs", "priority"] = "fcfs"
    """Who is served first."""
    watermark: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the KV blocks kept free when a request is admitted beside running ones."""
    num_lookahead_tokens: Annotated[int, Field(ge=0)] = 0
    """KV slots reserved beyond each decoding request."""


class Targets(Section):
    """Latency targets; each holds for `percentile` of the requests. Leave out what does not matter."""

    ttft_ms: Positive | None = None
    """Time to first token, in milliseconds."""
    tpot_ms: Positive | None = None
    """Time per output token after the first, averaged over a request, in milliseconds."""
    e2e_ms: Positive | None = None
    """From sending to the last token, in milliseconds."""
    percentile: Annotated[float, Field(ge=50, le=99.9)] = 99.0
    """Percent of the requests that keep each target."""

    @property
    def slo(self) -> Slo:
        """The targets in seconds."""
        return Slo(*(None if t is None else t / 1000 for t in (self.ttft_ms, self.tpot_ms, self.e2e_ms)))

    @property
    def is_empty(self) -> bool:
        """True where nothing is asked."""
        return not self.targets_s

    @property
    def targets_s(self) -> dict[Target, float]:
        """The targets that are given, in seconds, by metric."""
        given: dict[Target, float | None] = {
            "ttft_s": self.slo.ttft_s,
            "tpot_s": self.slo.tpot_s,
            "e2e_s": self.slo.e2e_s,
        }
        return {name: value for name, value in given.items() if value is not None}


class Prices(Section):
    """US dollars for one GPU and hour."""

    low: NotNegative
    """A good contract."""
    typical: NotNegative
    """What to expect."""
    high: NotNegative
    """An expensive provider."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low <= self.typical <= self.high:
            raise ValueError("prices must rise from low over typical to high")
        return self


class RunLength(Section):
    """How long a simulation may grow until its steady state is shown."""

    min_requests: Count = 2_000
    """Fewest requests of a run."""
    max_requests: Count = 64_000
    """Most requests of a run; without a steady state by then, the answer is that there is none to show."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_requests < self.min_requests:
            raise ValueError(f"max_requests is below min_requests ({self.min_requests}): raise it")
        return self


class Scenario(Section):
    """A model on some hardware under a workload, with latency targets and prices."""

    name: str = "scenario"
    """What to call it."""
    model: str
    """Catalogue name, Hugging Face folder, config.json or GGUF file."""
    weight_dtype: Format = "bf16"
    """Number format of the weights: fp32, bf16, fp16, fp8, int8, int4, fp4."""
    kv_dtype: Format = "bf16"
    """Number format of the KV cache."""
    hardware: Hardware
    parallelism: Parallelism = Parallelism()
    step_time: StepTime = StepTime()
    engine: EngineSettings = EngineSettings()
    fleet: Fleet = Fleet()
    client: Client = Client()
    faults: Faults = ()
    """What goes wrong, and when."""
    workload: Workload
    slo: Targets = Targets()
    prices: Prices | None = None
    """None: the catalogue's, for its accelerators."""
    run: RunLength = RunLength()
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every draw; the same seed gives the same bytes."""
