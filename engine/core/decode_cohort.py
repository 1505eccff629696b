"""The plainly decoding requests, kept as counters so that a step does not touch them.

Every member computes one token a step. So a member's context is `steps - anchor` with a constant anchor, the sum of
contexts grows by the number of members, and the members that need a new block in a step are one bucket of a ring of
`block_size` buckets. Joining and leaving cost O(log n); a step costs its bucket.
"""

from heapq import heappop, heappush

from engine.core.request import Request


class DecodeCohort:
    """Members and their clock; `steps` counts the decode steps since the start."""

    def __init__(self, block_size: int, num_lookahead_tokens: int) -> None:
        self.steps = 0
        self.members: dict[Request, None] = {}
        self.context_tokens = 0  # sum of the members' computed tokens
        self.with_output_keys: set[Request] = set()  # members whose output blocks may become prefix hits for others
        self._block_size = block_size
        self._lookahead = num_lookahead_tokens
        self._ring: list[dict[Request, None]] = [{} for _ in range(block_size)]
        self._longest: list[tuple[int, int, Request]] = []  # lazy heap of (anchor, order, request)
        self._limits: list[tuple[int, int, Request]] = []  # lazy heap of (step of the last token, order, request)

    def __len__(self) -> int:
        return len(self.members)

    def join(self, request: Request) -> None:
        """Take in a request that has one token left to compute; it counts from the next step on."""
        request.anchor = self.steps - request.num_computed_settled
        request.cohort = self
        self.members[request] = None
        self._ring[self._bucket(request)][request] = None
        self.context_tokens += request.num_computed_settled
        if not request.unshared_rest and len(request.block_keys) > request.num_prompt_tokens // self._block_size:
            self.with_output_keys.add(request)
        heappush(self._longest, (request.anchor, request.order, request))
        heappush(self._limits, (self._last_step(request), request.order, request))

    def leave(self, request: Request) -> None:
        """Let a member go; its counts are settled into the request."""
        computed = self.steps - request.anchor
        request.cohort = None
        request.num_computed_settled = computed
        request.num_tokens_settled = computed + 1
        del self.members[request]
        del self._ring[self._bucket(request)][request]
        self.context_tokens -= computed
        self.with_output_keys.discard(request)

    def advance(self, steps: int = 1) -> None:
        """Let `steps` decode steps pass."""
        self.steps += steps
        self.context_tokens += steps * len(self.members)

    def growing(self, offset: int = 0) -> dict[Request, None]:
        """Members that may need a block in the step `offset` steps ahead (0: the next one)."""
        return self._ring[(self.steps + offset) % self._block_size]

    def num_growing(self, steps: int) -> int:
        """Blocks that the members take in the next `steps` steps, each member one in `block_size` steps."""
        rounds, rest = divmod(steps, self._block_size)
        return rounds * len(self.members) + sum(len(self.growing(offset)) for offset in range(rest))

    def short(self) -> list[Request]:
        """Members that need a block in the next step; rejected drafts may have left one of `growing()` a spare."""
        size, reach = self._block_size, self.steps + self._lookahead
        return [r for r in self.growing() if len(r.block_ids) * size <= reach - r.anchor]

    def filling(self, offset: int = 0) -> dict[Request, None]:
        """Members whose last block becomes full in the step `offset` steps ahead."""
        return self._ring[(self.steps + offset + 1 - self._lookahead) % self._block_size]

    @property
    def longest_context(self) -> int:
        """The longest computed context of a member, 0 without members."""
        heap = self._longest
        while heap and (heap[0][2].cohort is not self or heap[0][2].anchor != heap[0][0]):
            heappop(heap)  # left since, or left and joined again
        return self.steps - heap[0][0] if heap else 0

    def at_limit(self) -> list[Request]:
        """Members that may not decode further: the token that ends them is in flight."""
        heap, ended = self._limits, []
        while heap and heap[0][0] <= self.steps:
            last_step, _, request = heappop(heap)
            if request.cohort is self and self._last_step(request) == last_step:
                ended.append(request)
        return ended

    def steps_to_limit(self) -> int | None:
        """Steps until the first member reaches its token limit; None without members."""
        heap = self._limits
        while heap and not (heap[0][2].cohort is self and self._last_step(heap[0][2]) == heap[0][0]):
            heappop(heap)
        return heap[0][0] - self.steps if heap else None

    def steps_until_short(self, num_free: int, limit: int) -> int:
        """How many steps, at most `limit`, can pass before the members need more than `num_free` blocks."""
        if num_free >= len(self.members) * -(-limit // self._block_size):
            return limit  # each member grows once in block_size steps
        rounds, left = divmod(num_free, len(self.members))
        steps = rounds * self._block_size
        while steps < limit:
            left -= len(self.growing(steps))
            if left < 0:
                break
            steps += 1
        return min(steps, limit)

    def _bucket(self, request: Request) -> int:
        return (request.anchor - self._lookahead) % self._block_size

    def _last_step(self, request: Request) -> int:
        return request.anchor + request.token_limit - 1
