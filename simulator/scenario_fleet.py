"""The sections of a scenario about the fleet around the engines: replicas, clients, faults.

Delays on the way to an engine are in milliseconds, as people write them; time limits and what happens to machines, in
seconds.
"""

from typing import Annotated, Literal

from pydantic import Discriminator, Field

from engine.core.trace_meta import ClientLink
from simulator.fleet import faults as fleet_faults
from simulator.fleet.patience import Patience
from simulator.fleet.patience import Retries as FleetRetries
from simulator.scenario_base import Count, NotNegative, Positive, Section

Share = Annotated[float, Field(ge=0, le=1)]
RouterName = Literal[
    "least_outstanding", "round_robin", "random", "least_tokens", "least_kv", "power_of_two", "session_affinity",
    "prefix_affinity",
]  # fmt: skip
Replica = Annotated[int, Field(ge=0)]


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
