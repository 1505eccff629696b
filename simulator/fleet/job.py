"""One request on its way through the fleet."""

from dataclasses import dataclass, field

from engine.core.request import Request

NEVER = float("nan")


@dataclass(slots=True, eq=False)
class Job:
    """A request with its true answer length, which the scheduler never sees, and what has happened to it.

    Times are seconds of virtual time, NaN until they happen. While it runs they are the engine's; the client that gets
    its answer moves `first_token_s`, `finish_s` and `token_times_s` to its own clock.
    """

    index: int
    request: Request
    output_tokens: int
    arrival_s: float
    session_id: str | None = None
    send_s: float = NEVER
    reach_s: float = NEVER  # when it reached the engine
    first_scheduled_s: float = NEVER
    resumed_s: float = NEVER  # when it was scheduled again, where a preemption came before its first token
    interrupted_s: float = 0.0  # gaps between its tokens while it was out of the batch, by a preemption most of all
    first_token_s: float = NEVER
    last_token_s: float = NEVER  # while it decodes in the cohort, the token before it joined
    finish_s: float = NEVER
    replica: int = -1
    finish_reason: str | None = None
    token_times_s: list[float] = field(default_factory=list)
    joined_step: int = -1  # decode step of its replica after which it is a member
    last_step: int = -1  # decode step that yields its last token; -1 outside the cohort

    def note_scheduled(self, now_s: float) -> None:
        """It joins the running requests: for the first time, or again after a preemption."""
        if self.first_scheduled_s != self.first_scheduled_s:  # NaN: not scheduled before
            self.first_scheduled_s = now_s
        elif self.first_token_s != self.first_token_s:
            self.resumed_s = now_s
