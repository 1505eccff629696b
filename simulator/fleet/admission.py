"""Who is let in: a bound on the queue, levels of load at which less is promised, and budgets of tokens by tenant.

All of it is decided before a replica is chosen. What is refused costs nothing, which is what keeps an overloaded fleet
of use to those who are let in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from roofline.errors import InputError
from simulator.fleet.job import FINISHED, Job


@dataclass(frozen=True, slots=True)
class Level:
    """With more than `above` requests a replica outstanding, answers have at most `max_tokens`, and requests of
    priority `reject_from` or less urgent (a larger number) are rejected."""

    above: float
    max_tokens: int | None = None
    reject_from: int | None = None


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Tokens a second that a tenant may use on average, `burst_s` seconds' worth of them at once; None: no bound."""

    input_per_s: float | None = None
    output_per_s: float | None = None
    burst_s: float = 60.0


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """`max_outstanding` requests a replica, waiting or running; levels of load; budgets by tenant ("*": any other)."""

    max_outstanding: float | None = None
    levels: tuple[Level, ...] = ()
    budgets: Mapping[str, TokenBudget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_outstanding is not None and not self.max_outstanding > 0:
            raise InputError(f"max_outstanding is {self.max_outstanding}; it must be positive, or nobody is let in.")


class Bucket:
    """Tokens that flow in at a rate up to a capacity; what is taken is there or it is not."""

    def __init__(self, rate_per_s: float, burst_s: float) -> None:
        self._rate_per_s, self._capacity = rate_per_s, rate_per_s * burst_s
        self._tokens, self._then_s = self._capacity, 0.0

    def level(self, now_s: float) -> float:
        """Tokens in it now."""
        self._tokens = min(self._capacity, self._tokens + (now_s - self._then_s) * self._rate_per_s)
        self._then_s = now_s
        return self._tokens

    def add(self, tokens: float, now_s: float) -> None:
        """Give tokens back, or take them if negative."""
        self._tokens = min(self._capacity, self.level(now_s) + tokens)


class Admission:
    """The rules at work."""

    def __init__(self, rules: AdmissionRules) -> None:
        self._rules = rules
        self._levels = sorted(rules.levels, key=lambda level: level.above)
        self._buckets: dict[str, tuple[Bucket | None, Bucket | None]] = {}  # of input and output tokens
        self._reserved: dict[Job, int] = {}

    def admits(self, job: Job, load: float, now_s: float) -> bool:
        """True if the request is let in at `load` requests outstanding a replica; its answer may become shorter.

        A budget is charged the prompt and the longest answer at once; `settle` gives back what was not used.
        """
        rules, request = self._rules, job.request
        if rules.max_outstanding is not None and load >= rules.max_outstanding:
            return False
        for level in self._levels:
            if load <= level.above:
                break
            if level.reject_from is not None and request.priority >= level.reject_from:
                return False
            if level.max_tokens is not None:
                request.max_tokens = min(request.max_tokens, level.max_tokens)
                job.output_tokens = min(job.output_tokens, level.max_tokens)
        return not rules.budgets or self._reserve(job, now_s)

    def settle(self, job: Job, now_s: float) -> None:
        """The request has left its replica: return what it had reserved and did not use."""
        reserved = self._reserved.pop(job, None)
        if reserved is not None:
            request = job.request
            whole = job.finish_reason in (None, FINISHED)
            used = job.output_tokens if whole else min(reserved, request.num_tokens - request.num_prompt_tokens)
            bucket = self._of(job)[1]
            assert bucket is not None
            bucket.add(reserved - used, now_s)

    def _reserve(self, job: Job, now_s: float) -> bool:
        wanted = (job.request.num_prompt_tokens, job.request.max_tokens)
        pairs = [(bucket, tokens) for bucket, tokens in zip(self._of(job), wanted, strict=True) if bucket is not None]
        if any(bucket.level(now_s) < tokens for bucket, tokens in pairs):
            return False
        for bucket, tokens in pairs:
            bucket.add(-tokens, now_s)
        if self._of(job)[1] is not None:
            self._reserved[job] = wanted[1]
        return True

    def _of(self, job: Job) -> tuple[Bucket | None, Bucket | None]:
        name = job.tenant or "*"
        if name not in self._buckets:
            budget = self._rules.budgets.get(name, self._rules.budgets.get("*", TokenBudget()))
            rates = (budget.input_per_s, budget.output_per_s)
            one, other = (None if rate is None else Bucket(rate, budget.burst_s) for rate in rates)
            self._buckets[name] = (one, other)
        return self._buckets[name]
