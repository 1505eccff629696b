"""A request as the scheduler sees it: counts and opaque block keys, never token ids, never the true output length."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from engine.core.config import EngineConfig
from roofline.errors import CapacityError, InputError

if TYPE_CHECKING:
    from engine.core.decode_cohort import DecodeCohort


class Status(Enum):
    """Where a request stands."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Request:
    """One request; the fields below the line belong to the scheduler.

    `block_keys[i]` names the content of the request's i-th full block together with everything before it (a chained
    hash): equal keys mean equal KV. The caller may append keys of output blocks as they fill. With `unshared_rest` the
    blocks beyond the keys given hold what no other request has; the scheduler names them itself when a preemption makes
    it matter. `num_tokens` is prompt plus output so far, counting the tokens that a step in flight is about to yield.
    """

    request_id: str
    num_prompt_tokens: int
    max_tokens: int
    arrival_s: float = 0.0
    priority: int = 0  # lower is served first
    block_keys: list[Hashable] = field(default_factory=list)
    unshared_rest: bool = False
    num_external_tokens: int = 0  # its first tokens whose KV comes from elsewhere: not computed unless it is preempted
    # ---
    status: Status = Status.WAITING
    num_tokens_settled: int = 0  # num_tokens while outside the decode cohort
    num_computed_settled: int = 0  # num_computed_tokens while outside the decode cohort
    cohort: "DecodeCohort | None" = None
    anchor: int = 0  # inside the cohort: num_computed_tokens = cohort.steps - anchor
    num_drafts: int = 0  # speculative tokens proposed for the next step
    token_limit: int = 0  # num_tokens at which max_tokens or max_model_len ends the request
    block_ids: list[int] = field(default_factory=list)
    num_keyed_blocks: int = 0  # own blocks whose key the prefix cache already knows
    num_cached_tokens: int = 0  # prefix hit at the first admission
    num_preemptions: int = 0
    order: int = 0  # place in the running list: larger joined later
    sampled_step: int = -1  # last step that was to yield a token of this request

    def __post_init__(self) -> None:
        if self.num_prompt_tokens < 1:
            raise InputError(f"request {self.request_id}: prompt of {self.num_prompt_tokens} tokens; give at least 1.")
        if self.max_tokens < 1:
            raise InputError(f"request {self.request_id}: max_tokens is {self.max_tokens}; it must be at least 1.")
        self.num_tokens_settled = self.num_prompt_tokens

    @property
    def num_computed_tokens(self) -> int:
        """Tokens whose KV is in the cache, counting those of a step in flight."""
        return self.num_computed_settled if self.cohort is None else self.cohort.steps - self.anchor

    @property
    def num_tokens(self) -> int:
        """Prompt plus output, counting tokens that a step in flight is about to yield."""
        return self.num_tokens_settled if self.cohort is None else self.cohort.steps - self.anchor + 1

    @property
    def is_decoding(self) -> bool:
        """Outside the cohort: True if all but the last token, an output, are computed."""
        computed = self.num_computed_settled
        return computed >= self.num_prompt_tokens and self.num_tokens_settled - computed == 1

    def limit_tokens(self, config: EngineConfig) -> None:
        """Set `token_limit` under an engine's settings; CapacityError if the request could never run there."""
        prompt, limit = self.num_prompt_tokens, config.max_model_len
        if prompt >= limit:
            raise CapacityError(
                f"request {self.request_id}: a prompt of {prompt} tokens leaves no room for an answer within "
                f"max_model_len {limit}. Shorten the prompt or raise max_model_len."
            )
        self.token_limit = min(prompt + self.max_tokens, limit)
        needed = -(-(self.token_limit - 1 + config.num_lookahead_tokens) // config.block_size)
        if needed > config.usable_blocks:
            raise CapacityError(
                f"request {self.request_id}: {prompt} prompt and {self.max_tokens} output tokens need {needed} KV "
                f"blocks of {config.block_size}, and there are {config.usable_blocks}. Raise num_blocks to "
                f"{needed + 1} or lower max_tokens."
            )
