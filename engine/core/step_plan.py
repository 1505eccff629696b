"""The decision of one step while it is being made; `Scheduler.schedule` turns it into a `Batch`."""

from dataclasses import dataclass, field

from engine.core.request import Request


@dataclass(slots=True)
class StepPlan:
    """Token shares given so far, and what had to happen to give them."""

    budget: int  # tokens left to give
    shares: dict[Request, int] = field(default_factory=dict)  # apart from cohort members, unless `walked`
    walked: bool = False  # True if every running request was served in order, the cohort's one by one
    grown: dict[Request, None] = field(default_factory=dict)
    preempted: list[Request] = field(default_factory=list)
    admitted: dict[Request, None] = field(default_factory=dict)
    cached_tokens: int = 0

    def give(self, request: Request, tokens: int) -> None:
        """Let `request` compute `tokens` tokens in this step."""
        self.shares[request] = tokens
        self.budget -= tokens

    def take_back(self, request: Request) -> int:
        """Undo what was given to a request that is being preempted; returns the tokens."""
        share = self.shares.pop(request, 0)
        self.budget += share
        self.grown.pop(request, None)
        return share
