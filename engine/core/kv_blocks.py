"""Paged KV cache accounting: which request owns which block, which blocks are free, which content is still cached.

Blocks are numbered from 1; block 0 is the null block and never owned. Free blocks form one LRU queue. With prefix
caching, a full block whose key is known stays findable after its last owner has left, until the queue hands it out
again.
"""

from collections import deque
from collections.abc import Collection, Hashable, Sequence

from engine.core.block_pool import BlockPool
from engine.core.config import EngineConfig
from engine.core.decode_cohort import DecodeCohort
from engine.core.request import Request

Key = Hashable


class KvBlocks(BlockPool):
    """The pool with its block ids.

    The queue is a deque of block ids in LRU order. A block that a prefix hit revives leaves a stale entry behind,
    counted in `_stale` and skipped when it surfaces: the earlier entry of a block is always the stale one, so the
    order stays exactly LRU. Only keyed and shared blocks are known one by one: an owned block of its own costs nothing.
    """

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.caching = config.enable_prefix_caching
        self._queue = deque(range(1, config.num_blocks) if self.caching else ())
        self._unordered = [] if self.caching else list(range(1, config.num_blocks))
        self._stale: dict[int, int] = {}
        self._more_owners: dict[int, int] = {}  # owners beyond the first
        self._key_of: dict[int, Key] = {}
        self._idle: set[int] = set()  # keyed blocks in the free queue
        self._cached: dict[Key, dict[int, None]] = {}

    def num_owned(self, request: Request) -> int:
        """Blocks that a request owns."""
        return len(request.block_ids)

    def find_hit(self, request: Request) -> list[int]:
        """Blocks holding the longest cached prefix of a waiting request, short of its last token."""
        hit: list[int] = []
        if not self.caching:
            return hit
        for key in request.block_keys[: (request.num_tokens_settled - 1) // self.block_size]:
            blocks = self._cached.get(key)
            if blocks is None:
                break
            hit.append(next(iter(blocks)))
        return hit

    def num_idle(self, blocks: Sequence[int]) -> int:
        """How many of `blocks` have no owner, and so would be taken out of the free queue."""
        return sum(block in self._idle for block in blocks)

    def fits(self, num_tokens: int, hit: Sequence[int], beside_others: bool) -> bool:
        """The admission gate: a whole sequence of `num_tokens` tokens must fit, so that waiting never preempts."""
        needed = self.blocks_for(num_tokens) - len(hit) + self.num_idle(hit)
        return needed + (self._watermark if beside_others else 0) <= self.num_free

    def adopt(self, request: Request, hit: Sequence[int]) -> None:
        """Make `request` an owner of the blocks of a prefix hit."""
        for block in hit:
            if block in self._idle:
                self._idle.remove(block)
                self._stale[block] = self._stale.get(block, 0) + 1
                self.num_free -= 1
            else:
                self._more_owners[block] = self._more_owners.get(block, 0) + 1
        request.block_ids.extend(hit)
        request.num_keyed_blocks = len(hit)

    def grow(self, request: Request, count: int) -> None:
        """Give `request` `count` free blocks."""
        request.block_ids.extend(self._take(count))

    def take_back(self, request: Request, num_tokens: int) -> None:
        """The blocks are in the request's table, from where `release` takes them."""

    def grow_members(self, cohort: DecodeCohort, spares: bool) -> dict[Request, None]:
        """Give the members of the cohort the blocks of their next step; returns whose `block_ids` became longer."""
        grown = dict.fromkeys(cohort.short() if spares else cohort.growing())
        for request, block in zip(grown, self._take(len(grown)), strict=True):
            request.block_ids.append(block)
        return grown

    def grow_each(self, groups: Sequence[tuple[Collection[Request], int]]) -> None:
        """Give every request of each group as many free blocks as the group's number says."""
        total = 0
        for requests, count in groups:
            total += len(requests) * count
        if not total:
            return
        taken = self._take(total)
        begin = 0
        for requests, count in groups:
            for request in requests:
                request.block_ids += taken[begin : begin + count]
                begin += count

    def _take(self, count: int) -> list[int]:
        """The `count` least recently used free blocks; what was cached in them is forgotten."""
        assert count <= self.num_free
        self.num_free -= count
        if not self.caching:  # the order of blocks without content decides nothing
            first = len(self._unordered) - count
            taken = self._unordered[first:]
            del self._unordered[first:]
            return taken
        popleft = self._queue.popleft
        taken = [popleft() for _ in range(count)] if not self._stale else self._take_past_stale(count)
        if self._idle:
            for block in self._idle.intersection(taken):
                self._forget(block)
        return taken

    def _take_past_stale(self, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count:
            block = self._queue.popleft()
            entries = self._stale.pop(block, 0)
            if entries > 1:
                self._stale[block] = entries - 1
            elif not entries:
                taken.append(block)
        return taken

    def register(self, request: Request, num_computed_tokens: int) -> None:
        """Make the request's full blocks findable, as far as their keys are known."""
        keys, first = request.block_keys, request.num_keyed_blocks
        full = min(num_computed_tokens // self.block_size, len(keys))
        if not self.caching or full <= first:
            return
        for key, block in zip(keys[first:full], request.block_ids[first:full], strict=True):
            self._key_of[block] = key
            self._cached.setdefault(key, {})[block] = None
        request.num_keyed_blocks = full
        self.version += 1

    def register_unshared(self, request: Request, num_computed_tokens: int) -> None:
        """Make a request's own blocks findable by itself, should it come back before they are overwritten.

        Nobody else can hit them, so doing this when it is preempted is as good as doing it block by block.
        """
        keys = request.block_keys
        keys.extend((request.request_id, i) for i in range(len(keys), num_computed_tokens // self.block_size))
        self.register(request, num_computed_tokens)

    def release(self, request: Request) -> None:
        """Take all blocks from `request`; those without another owner join the free queue, tail first."""
        blocks = request.block_ids[::-1]
        if self._more_owners:
            blocks = [block for block in blocks if not self._has_other_owner(block)]
        if self._key_of:
            self._idle.update(self._key_of.keys() & blocks)
        (self._queue if self.caching else self._unordered).extend(blocks)
        self.num_free += len(blocks)
        self.version += 1
        request.block_ids = []
        request.num_keyed_blocks = 0

    def _has_other_owner(self, block: int) -> bool:
        """Drop one owner; True if another remains."""
        more = self._more_owners.pop(block, 0)
        if more > 1:
            self._more_owners[block] = more - 1
        return more > 0

    def _forget(self, block: int) -> None:
        """Evict a cached block: its content is about to be overwritten."""
        self._idle.remove(block)
        key = self._key_of.pop(block)
        blocks = self._cached[key]
        del blocks[block]
        if not blocks:
            del self._cached[key]
