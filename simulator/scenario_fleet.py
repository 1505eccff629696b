"""The sections of a scenario about the fleet around the engines: replicas, admission, clients, faults.

Delays on the way to an engine are in milliseconds, as people write them; time limits and what happens to machines, in
seconds.
"""

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, model_validator

from engine.core.trace_meta import ClientLink
from simulator.fleet import faults as fleet_faults
from simulator.fleet.admission import AdmissionRules, Level, TokenBudget
from simulator.fleet.autoscaler import Autoscaling
from simulator.fleet.patience import Patience
from simulator.fleet.patience import Retries as FleetRetries
from simulator.scenario_base import Count, NotNegative, Positive, Section, checked

Share = Annotated[float, Field(ge=0, le=1)]
RouterName = Literal[
    "least_outstanding", "round_robin", "random", "least_tokens", "least_kv", "power_of_two", "session_affinity",
    "prefix_affinity",
]  # fmt: skip
Replica = Annotated[int, Field(ge=0)]


class LoadLevel(Section):
    """What is promised less of while the load is high."""

    above: NotNegative
    """Holds while more requests than this are outstanding on each replica."""
    max_tokens: Count | None = None
    """Longest answer then, in tokens; None: as asked."""
    reject_from: int | None = None
    """Requests of this priority, or of a larger number, are rejected then; None: none are."""


class Budget(Section):
    """Tokens that a tenant may use. A request takes its prompt and its longest answer at once, and returns the rest."""

    tenant: str = "*"
    """Name of the tenant; *: each of those without a budget of its own, and requests without a tenant together."""
    input_per_s: Positive | None = None
    """Prompt tokens a second on average; None: no bound."""
    output_per_s: Positive | None = None
    """Tokens of answers a second on average; None: no bound."""
    burst_s: Positive = 60.0
    """So many seconds' worth may be used at once."""


class Admission(Section):
    """Who is let in; the others are rejected at once."""

    max_outstanding: Positive | None = None
    """Most requests waiting or running on each replica; None: no bound."""
    levels: tuple[LoadLevel, ...] = ()
    """What is promised less of, the higher the load."""
    budgets: tuple[Budget, ...] = ()
    """Budgets of tokens, by tenant."""

    def build(self) -> AdmissionRules | None:
        """The rules that the fleet follows; None where everybody is let in."""
        levels = tuple(Level(level.above, level.max_tokens, level.reject_from) for level in self.levels)
        budgets = {b.tenant: TokenBudget(b.input_per_s, b.output_per_s, b.burst_s) for b in self.budgets}
        rules = AdmissionRules(self.max_outstanding, levels, budgets)
        return None if rules == AdmissionRules() else rules

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [budget.tenant for budget in self.budgets]
        if len(set(names)) < len(names):
            raise ValueError(f"budgets name a tenant twice ({', '.join(names)}): join them")
        return self


class Autoscaler(Section):
    """Replicas come and go with the load; `fleet.replicas` is how many there are at the start."""

    gauge: Literal["outstanding", "waiting", "kv_use"] = "outstanding"
    """What is looked at: requests waiting or running, requests waiting, or the share of KV blocks in use."""
    target: Positive
    """What each replica should have of it."""
    min_replicas: Annotated[int, Field(ge=0)] = 1
    """Fewest replicas; 0: none while nothing is asked, and the next request waits for one to come."""
    max_replicas: Count
    """Most replicas."""
    interval_s: Positive = 15.0
    """Seconds between two looks."""
    up_delay_s: NotNegative = 0.0
    """More are begun once they have been wanted for so many seconds."""
    down_delay_s: NotNegative = 300.0
    """Fewer are kept once no more have been wanted for so many seconds."""
    start_s: NotNegative = 60.0
    """Seconds from the begin of a replica until its model is loaded."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        checked(lambda: Autoscaling(**self.model_dump()))
        return self


class Disaggregation(Section):
    """Some replicas compute prompts only, the others answers; the KV cache crosses a link that all transfers share."""

    prefill_share: Annotated[float, Field(gt=0, lt=1)]
    """Share of the replicas that compute prompts, rounded to whole ones; at least one of each kind."""
    link_gb_per_s: Positive
    """Bandwidth of the link, in 10^9 bytes per second, for all transfers together."""
    link_latency_ms: NotNegative = 0.0
    """What a transfer takes besides, in milliseconds."""


class Fleet(Section):
    """How many replicas there are, and who decides which one serves a request."""

    replicas: Count = 1
    """Replicas that `simulator run` and the load curve simulate; `simulator plan` searches for the number."""
    max_replicas: Count = 256
    """Most replicas that a plan may use."""
    router: RouterName = "least_outstanding"
    """Who gets the next request. least_outstanding, least_tokens and least_kv: the replica with the fewest requests,
    prompt tokens, or KV blocks in use; power_of_two: of two drawn by chance, the one with fewer requests;
    session_affinity: the one that had the session before; prefix_affinity: the one that was sent the longest part of
    the prompt before, unless it has much more to do than others."""
    autoscaler: Autoscaler | None = None
    """None: the number of replicas stays."""
    admission: Admission = Admission()
    disaggregation: Disaggregation | None = None
    """None: every replica computes prompts and answers."""

    @property
    def autoscaling(self) -> Autoscaling | None:
        """What the fleet's autoscaler is told; None where there is none."""
        return None if self.autoscaler is None else Autoscaling(**self.autoscaler.model_dump())


class Retries(Section):
    """Sending a request again that timed out, was rejected, or failed."""

    attempts: Count = 1
    """Sendings of one request at most, the first included."""
    backoff_s: NotNegative = 1.0
    """Pause before the first repetition, in seconds."""
    factor: Annotated[float, Field(ge=1)] = 2.0
    """Each further pause is so many times as long."""
    jitter: Share = 1.0
    """Greatest share of a pause that chance takes off; 0 keeps clients in step."""


class Client(Section):
    """What lies between the users and the engines."""

    max_concurrency: Count | None = None
    """Most requests in flight in the fleet; None: an open loop, as real users are."""
    to_engine_ms: NotNegative = 0.0
    """Delay of a request on its way to the engine, in milliseconds."""
    to_client_ms: NotNegative = 0.0
    """Delay of a token on its way back, in milliseconds."""
    timeout_s: Positive | None = None
    """A request is given up so many seconds after its sending; None: never."""
    first_token_timeout_s: Positive | None = None
    """The same while no token has come."""
    abort_share: Share = 0.0
    """Share of the users who leave before their answer is complete, after an exponential time."""
    abort_after_s: NotNegative = 0.0
    """Mean of that time, in seconds from the sending."""
    retries: Retries = Retries()

    @property
    def link(self) -> ClientLink:
        """What lies between the client and the engine, in seconds."""
        return ClientLink(self.max_concurrency, self.to_engine_ms / 1000, self.to_client_ms / 1000)

    @property
    def patience(self) -> Patience | None:
        """When the client gives up; None where nothing makes it do so or send again."""
        patience = Patience(
            self.timeout_s, self.first_token_timeout_s, self.abort_share, self.abort_after_s,
            FleetRetries(**self.retries.model_dump()),
        )  # fmt: skip
        return None if patience == Patience() else patience


class Crash(Section):
    """A replica dies with all it has."""

    kind: Literal["crash"]
    replica: Replica
    """Its number, from 0."""
    at_s: NotNegative
    """When, in seconds from the start of the run."""
    restart_s: NotNegative | None = None
    """It is up again so many seconds later, empty; None: never."""

    def build(self) -> fleet_faults.Fault:
        """The fault that happens."""
        return fleet_faults.Crash(self.replica, self.at_s, self.restart_s)


class Crashes(Section):
    """Every replica dies now and then."""

    kind: Literal["crashes"]
    mean_between_s: Positive
    """Mean seconds between two crashes of one replica; the times are exponential."""
    restart_s: NotNegative
    """It is up again so many seconds later, empty."""

    def build(self) -> fleet_faults.Fault:
        """The fault that happens."""
        return fleet_faults.Crashes(self.mean_between_s, self.restart_s)


class Slowdown(Section):
    """A replica is slower for a while."""

    kind: Literal["slowdown"]
    replica: Replica
    """Its number, from 0."""
    at_s: NotNegative
    """From when, in seconds from the start of the run."""
    duration_s: NotNegative
    """For how many seconds."""
    factor: Positive
    """Its passes take so many times as long."""

    def build(self) -> fleet_faults.Fault:
        """The fault that happens."""
        return fleet_faults.Slowdown(self.replica, self.at_s, self.duration_s, self.factor)


class RollingUpgrade(Section):
    """One replica after the other is drained, stopped and started again."""

    kind: Literal["rolling_upgrade"]
    at_s: NotNegative
    """When it begins, in seconds from the start of the run."""
    drain_s: NotNegative
    """Longest wait for a replica's requests to end, in seconds; those left then fail."""
    restart_s: NotNegative
    """Seconds that a replica is down."""

    def build(self) -> fleet_faults.Fault:
        """The fault that happens."""
        return fleet_faults.RollingUpgrade(self.at_s, self.drain_s, self.restart_s)


class SpotInterruption(Section):
    """A machine is taken back after a notice."""

    kind: Literal["spot_interruption"]
    replica: Replica
    """Its number, from 0."""
    at_s: NotNegative
    """When the notice comes, in seconds from the start of the run; the replica takes nothing new from then on."""
    notice_s: NotNegative
    """Seconds from the notice to the end."""
    replace_s: NotNegative | None = None
    """Another is up so many seconds after the end; None: none is."""

    def build(self) -> fleet_faults.Fault:
        """The fault that happens."""
        return fleet_faults.SpotInterruption(self.replica, self.at_s, self.notice_s, self.replace_s)


Faults = tuple[Annotated[Crash | Crashes | Slowdown | RollingUpgrade | SpotInterruption, Discriminator("kind")], ...]
