"""The continuous-batching policy: vLLM V1's semantics as a pure object that the engine and the simulator both drive.

No torch, no clock, no token ids, no knowledge of how long an answer will be. There is no prefill or decode phase: each
step moves a request's computed tokens toward its known tokens. A caller loops

    batch = scheduler.schedule()            # decide
    ...                                     # compute it, or ask a StepTimeModel how long it takes
    scheduler.complete(batch, finished)     # say who ended

With asynchronous scheduling, `schedule()` for step k+1 is called before `complete()` of step k.

A step costs what changes in it. Plainly decoding requests stand in a `DecodeCohort` and are not touched; the others are
walked. Where the token budget or the free blocks fall short, `_serve_in_order` walks all running requests in order.
"""

from collections.abc import Iterable, Mapping
from itertools import count
from operator import attrgetter

from engine.core.batch import Batch, Chunk, batch_work, chunk_of
from engine.core.block_pool import BlockPool
from engine.core.config import EngineConfig
from engine.core.decode_cohort import DecodeCohort
from engine.core.kv_blocks import KvBlocks
from engine.core.request import Request, Status
from engine.core.step_plan import StepPlan
from engine.core.waiting import waiting_queue

BY_ORDER = attrgetter("order")


class Scheduler:
    """Decides step by step which requests compute how many tokens, and which blocks they own."""

    def __init__(self, config: EngineConfig, blocks: BlockPool | None = None) -> None:
        """`blocks` is `KvBlocks(config)` unless given."""
        self.config = config
        self.blocks = blocks or KvBlocks(config)
        self.waiting = waiting_queue(config.policy)
        self.running: dict[Request, None] = {}  # in the order of admission
        self.cohort = DecodeCohort(config.block_size, config.num_lookahead_tokens)
        self._others: dict[Request, None] = {}  # running, outside the cohort, may be given tokens
        self._exhausted: set[Request] = set()  # running, but the token that ends them is in flight
        self._left: dict[Request, None] = {}
        self._in_flight: list[Batch] = []
        self._void: dict[int, set[Request]] = {}
        self._longest_chunk = config.long_prefill_token_threshold or config.max_num_batched_tokens
        self._admissions = count()
        self._step = 0
        self._steady = False
        self._spares = False  # rejected drafts may have left requests with more blocks than they need
        self._blocked_head: tuple[Request, int, bool] | None = None

    # --- what callers do ---

    def add(self, request: Request) -> None:
        """Put a new request into the waiting queue; CapacityError if it could never run."""
        request.limit_tokens(self.config)
        self.waiting.push(request)
        self._steady = False

    def abort(self, request: Request) -> None:
        """End a request that is not finished; its blocks are free at once, its tokens in flight void."""
        if request.status is Status.RUNNING:
            self._end(request)
        elif request.status is not Status.FINISHED:
            self.waiting.remove(request)
            request.status = Status.FINISHED
        self._steady = False

    def propose(self, request: Request, num_drafts: int) -> None:
        """Announce speculative tokens of a decoding request for its next step (synchronous scheduling only)."""
        assert not self.config.async_scheduling and request.status is Status.RUNNING
        if request.cohort is not None:
            self._leave_cohort(request)
            self._walk_also(request)
        assert request.is_decoding, "drafts follow the last known token"
        request.num_drafts = num_drafts
        self._steady = False

    def schedule(self) -> Batch:
        """Decide the next step; an empty batch means that nothing can run until a request arrives or completes."""
        for request in self.cohort.at_limit():
            self._leave_cohort(request)
            self._exhausted.add(request)
        plan = self._plan()
        while plan.preempted and plan.walked and not plan.shares and not self._in_flight:
            plan = self._plan(plan.preempted)  # one that preempted itself ended the pass for those behind it
        return self._apply(plan)

    def _plan(self, preempted: Iterable[Request] = ()) -> StepPlan:
        plan = StepPlan(self.config.max_num_batched_tokens)
        if not self._serve_without_walking(plan):
            self._serve_in_order(plan)
        if not plan.preempted:
            self._admit(plan)
        plan.preempted[:0] = preempted
        return plan

    def voided(self, batch: Batch) -> frozenset[Request]:
        """Requests whose token of `batch` must be dropped: preempted, aborted or finished since it was scheduled."""
        return frozenset(self._void.get(batch.step, ()))

    def complete(
        self, batch: Batch, finished: Iterable[Request] = (), accepted: Mapping[Request, int] | None = None
    ) -> None:
        """Take back the oldest batch in flight: who ended with its tokens, and how many drafts were accepted."""
        assert self._in_flight and self._in_flight[0].step == batch.step, "batches complete in order, once"
        del self._in_flight[0]
        self._void.pop(batch.step, None)
        for chunk in batch.chunks:
            if chunk.num_drafts and chunk.request.status is Status.RUNNING:
                rejected = chunk.num_drafts - (accepted or {})[chunk.request]
                chunk.request.num_computed_settled -= rejected
                chunk.request.num_tokens_settled -= rejected
                self._spares = self._spares or rejected > 0
        for request in sorted(finished, key=BY_ORDER):  # blocks become free in the running order
            self._end(request)

    @property
    def has_work(self) -> bool:
        """True while any request waits or runs."""
        return self.num_running + self.num_waiting > 0

    @property
    def num_running(self) -> int:
        """Admitted requests, those included whose last token is in flight."""
        return len(self.running)

    @property
    def num_waiting(self) -> int:
        """Requests not yet admitted or preempted."""
        return len(self.waiting)

    # --- fast-forward ---

    def steady_steps(self, limit: int) -> int:
        """After a `schedule()`: how many more steps, at most `limit`, would decide the same if nobody ends or arrives.

        In those steps the same requests decode, and nothing changes but their contexts and blocks.
        """
        if not self._steady or self._exhausted:
            return 0
        if self.waiting and self.cohort.with_output_keys:
            return 0  # a block filled by a running request may let the head of the queue in
        to_limit = self.cohort.steps_to_limit() or 0
        return self.cohort.steps_until_short(self.blocks.num_free, min(limit, to_limit))

    def fast_forward(self, steps: int) -> tuple[Batch, ...]:
        """Let 1 <= `steps` <= `steady_steps()` steps pass as if each were completed and the next scheduled.

        Returns the batches then in flight: the last is what stepping one by one would have returned.
        """
        cohort, block_size, shared = self.cohort, self.config.block_size, self.cohort.with_output_keys
        ahead = range(min(steps, block_size))
        keyed = [r for offset in ahead for r in cohort.filling(offset) if r in shared] if shared else ()
        growing = [(cohort.growing(offset), 1 + (steps - 1 - offset) // block_size) for offset in ahead]
        if self._spares:
            growing = [({r: None}, self._blocks_short(r, steps)) for requests, _ in growing for r in requests]
        self.blocks.grow_each(growing)
        cohort.advance(steps)
        for request in sorted(keyed, key=lambda r: (-r.num_computed_tokens, r.order)):  # in the order of filling
            self.blocks.register(request, request.num_computed_tokens)
        self._step += steps
        self._void.clear()
        used, behind = self.blocks.num_used, len(self._in_flight)
        self._in_flight = [self._in_flight[-1].later(steps - back, used) for back in reversed(range(behind))]
        return tuple(self._in_flight)

    # --- running requests ---

    def _serve_without_walking(self, plan: StepPlan) -> bool:
        """Give every running request its tokens without touching the cohort; False if order would matter."""
        budget = plan.budget - len(self.cohort.members)
        growing = self.cohort.growing()
        blocks = len(growing)
        shares, lacking = {}, {}
        for request in self._others:
            wanted = self._wanted(request)
            share = min(wanted, budget)
            if share < wanted and not self._is_behind_cohort(request):
                return False
            if share > 0:
                shares[request] = share
                budget -= share
                if short := self._blocks_short(request, share):
                    lacking[request] = short
                    blocks += short
            elif wanted:
                break
        if budget < 0 or blocks > self.blocks.num_free:
            return False
        plan.shares, plan.budget = shares, budget
        if growing:
            plan.grown = self.blocks.grow_members(self.cohort, self._spares)
        for request, short in lacking.items():
            self.blocks.grow(request, short)
            plan.grown[request] = None
        return True

    def _serve_in_order(self, plan: StepPlan) -> None:
        """Give running requests their tokens one by one, preempting from the back where blocks run out."""
        plan.walked = True
        order = list(self.running)
        index = 0
        while index < len(order) and plan.budget > 0:
            request = order[index]
            share = min(self._wanted(request), plan.budget)
            while share and self._blocks_short(request, share) > self.blocks.num_free:
                victim = self._victim(order)
                index -= order.index(victim) < index
                order.remove(victim)
                self.blocks.take_back(victim, plan.take_back(victim))
                plan.preempted.append(victim)
                self._preempt(victim)
                if victim is request:
                    return
            if share:
                plan.give(request, share)
                self._grow(plan, request, share)
            index += 1

    def _wanted(self, request: Request) -> int:
        """Tokens a running request would compute in this step with budget and blocks to spare."""
        if request.cohort is not None:
            return 1
        if request.num_tokens_settled >= request.token_limit:
            return 0  # the token that ends it is in flight
        computed = request.num_computed_settled
        wanted = request.num_tokens_settled + request.num_drafts - computed
        return min(wanted, self._longest_chunk, request.token_limit - 1 - computed)

    def _is_behind_cohort(self, request: Request) -> bool:
        """True if no cohort member stands behind `request` in the running order."""
        for other in reversed(self.running):
            if other is request:
                return True
            if other.cohort is not None:
                return False
        raise AssertionError("the request is not running")

    def _blocks_short(self, request: Request, tokens: int) -> int:
        """Blocks `request` lacks to compute `tokens` more tokens."""
        return max(0, self.blocks.blocks_for(request.num_computed_tokens + tokens) - self.blocks.num_owned(request))

    def _grow(self, plan: StepPlan, request: Request, tokens: int) -> None:
        short = self._blocks_short(request, tokens)
        if short:
            self.blocks.grow(request, short)
            plan.grown[request] = None

    def _victim(self, order: list[Request]) -> Request:
        """Who is preempted: the last to be admitted, or under priority the least urgent, latest arrival."""
        if self.config.policy == "priority":
            return max(order, key=lambda r: (r.priority, r.arrival_s))
        return order[-1]

    def _preempt(self, request: Request) -> None:
        """Send a running request back to the head of the queue; it recomputes prompt and outputs."""
        if request.unshared_rest:  # a block is keyed only once the token that fills it is known
            unknown = bool(self._in_flight) and (request.cohort is not None or request in self._exhausted)
            self.blocks.register_unshared(request, request.num_computed_tokens - unknown)
        self._leave_running(request)
        if any(batch.step == request.sampled_step for batch in self._in_flight):
            request.num_tokens_settled -= 1  # its token in flight is dropped and computed again
        request.num_computed_settled = 0
        request.num_drafts = 0
        request.num_preemptions += 1
        request.status = Status.PREEMPTED
        self.waiting.push_front(request)

    def _end(self, request: Request) -> None:
        assert request.status is Status.RUNNING, f"request {request.request_id} is {request.status.value}"
        self._leave_running(request)
        request.status, self._steady = Status.FINISHED, False

    def _leave_running(self, request: Request) -> None:
        self._leave_cohort(request)
        self._others.pop(request, None)
        self._exhausted.discard(request)
        del self.running[request]
        self.blocks.release(request)
        for batch in self._in_flight:
            self._void.setdefault(batch.step, set()).add(request)

    def _leave_cohort(self, request: Request) -> None:
        if request.cohort is not None:
            self.cohort.leave(request)
            request.sampled_step = self._step - 1
            self._left[request] = None

    def _walk_also(self, request: Request) -> None:
        """Walk a request that left the cohort, at its place in the running order."""
        self._others = dict.fromkeys(sorted([*self._others, request], key=BY_ORDER))

    # --- waiting requests ---

    def _admit(self, plan: StepPlan) -> None:
        """Let waiting requests in from the head, as long as budget, places and blocks allow."""
        while self.waiting and plan.budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self.waiting.peek()
            circumstances = (request, self.blocks.version, bool(self.running))
            if self._blocked_head == circumstances:
                break  # free blocks have only become fewer since the gate closed
            hit = self.blocks.find_hit(request)
            cached = len(hit) * self.config.block_size
            computed = max(cached, request.num_external_tokens if request.status is Status.WAITING else 0)
            tokens = min(request.num_tokens_settled - computed, self._longest_chunk)
            if tokens > plan.budget and not self.config.enable_chunked_prefill:
                break
            tokens = min(tokens, plan.budget)
            if not self.blocks.fits(request.num_tokens_settled, hit, beside_others=bool(self.running)):
                self._blocked_head = circumstances
                break
            self.waiting.remove(request)
            self._start(request, hit, cached)
            plan.admitted[request] = None
            plan.cached_tokens += cached
            plan.give(request, tokens)
            self._grow(plan, request, computed - cached + tokens)
            request.num_computed_settled = computed

    def _start(self, request: Request, hit: list[int], cached: int) -> None:
        if request.status is Status.WAITING:
            request.num_cached_tokens = cached
        request.status = Status.RUNNING
        request.num_computed_settled = cached
        request.order = next(self._admissions)
        self.blocks.adopt(request, hit)
        self.running[request] = None
        self._others[request] = None

    # --- the decision becomes state ---

    def _apply(self, plan: StepPlan) -> Batch:
        """Count the given tokens as computed, so that the next step can be scheduled before this one's results."""
        if plan.walked:
            self._part_with_starved(plan)
        self._steady = False
        if not self.cohort.members and not plan.shares:
            return self._as_batch(plan, (), ())
        filling = self._filling() if self.blocks.caching else []
        self.cohort.advance()
        chunks: list[Chunk] = []
        joined: list[Request] = []
        for request, share in plan.shares.items():
            if request.cohort is not None:
                continue
            decodes = request.is_decoding and request not in plan.admitted
            if decodes and share == 1:
                joined.append(request)
            else:
                chunks.append(chunk_of(request, share, decodes))
            self._count(request, share, drafts=share - 1 if decodes else 0)
        if self.blocks.caching:
            self._register_filled(plan, filling)
        for request in joined:
            del self._others[request]
            self.cohort.join(request)
        batch = self._as_batch(plan, tuple(chunks), tuple(joined))
        self._in_flight.append(batch)
        self._left = {}
        self._step += 1
        self._steady = bool(self.cohort.members) and not self._others and not plan.preempted
        return batch

    def _part_with_starved(self, plan: StepPlan) -> None:
        """Members that the budget did not reach stand still, and so leave the cohort."""
        for request in [r for r in self.cohort.members if r not in plan.shares]:
            self._leave_cohort(request)
            self._walk_also(request)

    def _register_filled(self, plan: StepPlan, filling: list[Request]) -> None:
        """Make blocks that this step fills findable, in the running order: of equal ones the first is found."""
        others = [r for r in plan.shares if r.cohort is None or len(r.block_keys) > r.num_keyed_blocks]
        for request in sorted(dict.fromkeys(filling + others), key=BY_ORDER):
            self.blocks.register(request, request.num_computed_tokens)

    def _filling(self) -> list[Request]:
        """Cohort members with a block to register in this step; a key that came one step late counts then."""
        late = [*self.cohort.filling(-1)] if self.config.async_scheduling else []
        members = [*late, *self.cohort.filling()]
        return [r for r in members if len(r.block_keys) > r.num_keyed_blocks]

    def _count(self, request: Request, share: int, drafts: int) -> None:
        """Advance a request outside the cohort by `share` tokens; a sampling one gains the token it will yield."""
        request.num_computed_settled += share
        request.num_drafts = 0
        if request.num_computed_settled - drafts == request.num_tokens_settled:
            request.num_tokens_settled += 1 + drafts
            request.sampled_step = self._step

    def _as_batch(self, plan: StepPlan, chunks: tuple[Chunk, ...], joined: tuple[Request, ...]) -> Batch:
        return Batch(
            step=self._step, work=batch_work(chunks, self.cohort), chunks=chunks, joined=joined, left=tuple(self._left),
            grown=tuple(plan.grown), admitted=tuple(plan.admitted), preempted=tuple(plan.preempted),
            cached_tokens=plan.cached_tokens, kv_blocks_used=self.blocks.num_used,
            num_running=len(self.running), num_waiting=len(self.waiting),
        )  # fmt: skip
