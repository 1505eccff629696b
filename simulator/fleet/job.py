"""One request on its way through the fleet, and the five ways in which it can end."""

from dataclasses import dataclass, field

from engine.core.request import Request

NEVER = float("nan")

# How a request ends, as its client sees it: `finish_reason` in a trace.
FINISHED = "length"  # all of its answer
REJECTED = "rejected"  # refused before any work
TIMED_OUT = "timeout"  # the client's time limit passed
ABORTED = "abort"  # its user went away
FAILED = "failed"  # the replica that had it died, or none is left
ENDS = (FINISHED, REJECTED, TIMED_OUT, ABORTED, FAILED)


@dataclass(slots=True, eq=False)
class Job:
    """A request with its true answer length, which the scheduler never sees, and what has happened to it.

    Times are seconds of virtual time, NaN until they happen. While it runs they are the engine's; the client that gets
    its answer moves `first_token_s`, `finish_s` and `token_times_s` to its own clock. A request that is sent again is a
    new job of the same `index`, so that whatever still works on the old one disturbs nothing.
    """

    index: int
    request: Request
    output_tokens: int
    arrival_s: float
    session_id: str | None = None
    tenant: str | None = None
    send_s: float = NEVER
    reach_s: float = NEVER  # when it reached the engine
    first_scheduled_s: float = NEVER
    first_token_s: float = NEVER
    last_token_s: float = NEVER  # while it decodes in the cohort, the token before it joined
    finish_s: float = NEVER
    replica: int = -1
    attempt: int = 1  # how often it has been sent
    origin: "Job | None" = None  # the whole request, of a job that is a part of one
    finish_reason: str | None = None
    token_times_s: list[float] = field(default_factory=list)
    joined_step: int = -1  # decode step of its replica after which it is a member
    last_step: int = -1  # decode step that yields its last token; -1 outside the cohort

    def again(self, now_s: float) -> "Job":
        """The same request to be sent once more, now; latencies still count from its first sending."""
        old = self.request
        own = (key for key in old.block_keys if not (isinstance(key, tuple) and key[0] == old.request_id))
        request = Request(
            old.request_id, old.num_prompt_tokens, old.max_tokens, now_s, old.priority, list(own), old.unshared_rest
        )
        return Job(
            self.index, request, self.output_tokens, self.arrival_s, self.session_id, self.tenant,
            self.send_s, attempt=self.attempt + 1,
        )  # fmt: skip
