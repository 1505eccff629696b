"""KV cache blocks as counts alone: how many are free, for callers that never ask which.

Without prefix caching blocks have no content that anybody could find again, so one is as good as another, and what a
request owns follows from the tokens it has computed. The simulator then needs no block ids; `KvBlocks` has them. Both
make the same decisions.
"""

from collections.abc import Collection, Sequence

from engine.core.config import EngineConfig
from engine.core.decode_cohort import DecodeCohort
from engine.core.request import Request


class BlockPool:
    """The pool. Methods that take blocks require them to be free: the scheduler asks `num_free` first.

    Only for requests without drafts: a rejected draft may leave a request with a block it does not need yet.
    """

    caching = False

    def __init__(self, config: EngineConfig) -> None:
        self.block_size = config.block_size
        self.num_blocks = config.num_blocks
        self.num_free = config.usable_blocks
        self.version = 0  # grows whenever a waiting request might fit better than before: blocks freed or keyed
        self._lookahead = config.num_lookahead_tokens
        self._watermark = int(config.watermark * config.num_blocks)

    @property
    def num_used(self) -> int:
        """Blocks owned by at least one request."""
        return self.num_blocks - 1 - self.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold `num_tokens` tokens and the drafts that may follow them."""
        return -(-(num_tokens + self._lookahead) // self.block_size)

    def num_owned(self, request: Request) -> int:
        """Blocks that a request owns."""
        computed = request.num_computed_tokens
        return self.blocks_for(computed) if computed else 0

    def find_hit(self, request: Request) -> list[int]:
        """Blocks holding the longest cached prefix of a waiting request, short of its last token."""
        return []

    def fits(self, num_tokens: int, hit: Sequence[int], beside_others: bool) -> bool:
        """The admission gate: a whole sequence of `num_tokens` tokens must fit, so that waiting never preempts."""
        return self.blocks_for(num_tokens) + (self._watermark if beside_others else 0) <= self.num_free

    def adopt(self, request: Request, hit: Sequence[int]) -> None:
        """Make `request` an owner of the blocks of a prefix hit."""

    def grow(self, request: Request, count: int) -> None:
        """Give `request` `count` free blocks."""
        self.num_free -= count

    def grow_each(self, groups: Sequence[tuple[Collection[Request], int]]) -> None:
        """Give every request of each group as many free blocks as the group's number says."""
        for requests, count in groups:
            self.num_free -= len(requests) * count

    def grow_members(self, cohort: DecodeCohort, spares: bool) -> dict[Request, None]:
        """Give the members of the cohort the blocks of their next step; returns whose `block_ids` became longer.

        With `spares` some may have a block more than they need.
        """
        self.num_free -= len(cohort.growing())
        return {}

    def take_back(self, request: Request, num_tokens: int) -> None:
        """Undo a request's growth for tokens that it will not compute after all; `release` follows."""
        if num_tokens:
            self.num_free += self.blocks_for(request.num_computed_tokens + num_tokens) - self.num_owned(request)

    def register(self, request: Request, num_computed_tokens: int) -> None:
        """Make the request's full blocks findable, as far as their keys are known."""

    def register_unshared(self, request: Request, num_computed_tokens: int) -> None:
        """Make a request's own blocks findable by itself, should it come back before they are overwritten."""

    def release(self, request: Request) -> None:
        """Take all blocks from `request`."""
        self.num_free += self.num_owned(request)
        self.version += 1
