"""How the tokens of one request are chosen and when it ends: plain values, checked once, read by sampler and loop."""

import math
from dataclasses import dataclass

from roofline.errors import InputError

MAX_SEED = 2**63 - 1
GREEDY_BELOW = 1e-5  # vLLM's; logits divided by less run out of float32


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """One request's sampling and stopping rules.

    `temperature` 0, or below `GREEDY_BELOW`, is greedy; then the filters and the seed have no effect. The filters act
    on the distribution after temperature: `min_p` keeps tokens of at least that fraction of the likeliest one's
    probability, `top_k` the k likeliest (0: all), `top_p` the smallest set of likeliest tokens that holds that much of
    what is left. `seed` makes a request's draws its own; without one the engine gives it one. A `stop` string ends the
    request when it shows in the text, and is not part of it. `stop_token_ids` and, unless `ignore_eos`, the model's end
    tokens end it too; none of them is sampled before `min_tokens` tokens have come.

    Raises `InputError` for a value outside its range.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("max_tokens", "temperature", "top_k", "top_p", "min_p", "min_tokens"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)}; it must be a finite number.")
        self._check_ranges()
        self._check_stops()

    def _check_ranges(self) -> None:
        if self.max_tokens < 1:
            raise InputError(f"max_tokens is {self.max_tokens}; ask for at least 1 token.")
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; use 0 for greedy or a positive number.")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; use 0 for all tokens or a positive number.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}; it must be from 0 to 1.")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise InputError(f"min_tokens is {self.min_tokens}; it must be from 0 to max_tokens, {self.max_tokens}.")
        if self.seed is not None and not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed is {self.seed}; it must be from 0 to {MAX_SEED}.")

    def _check_stops(self) -> None:
        texts: object = self.stop  # a plain string is a tuple's likeliest mistake, and types do not run
        if not isinstance(texts, tuple) or not all(isinstance(text, str) and text for text in texts):
            raise InputError(f"stop is {self.stop!r}; give a tuple of strings that are not empty.")
        if any(token < 0 for token in self.stop_token_ids):
            raise InputError(f"stop_token_ids is {self.stop_token_ids}; token ids are not negative.")

    @property
    def is_greedy(self) -> bool:
        """True if the likeliest token is always taken."""
        return self.temperature < GREEDY_BELOW

    @property
    def is_filtered(self) -> bool:
        """True if some tokens may be excluded before drawing."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0
