"""The scheduler and the naive one driven side by side: every decision, count and block is compared after every step."""

from engine.core.batch import Batch
from engine.core.block_pool import BlockPool
from engine.core.config import EngineConfig
from engine.core.request import Request, Status
from engine.core.scheduler import Scheduler
from tests.engine.core.naive_scheduler import Naive, NaiveScheduler


class Pair:
    """Two schedulers under one caller; `answers[name]` is the number of tokens a request will have produced.

    With `counted` the fast one has a pool of counts in place of block ids; that allows no caching and no drafts.
    """

    def __init__(self, config: EngineConfig, counted: bool = False):
        self.config = config
        self.counted = counted
        self.fast = Scheduler(config, BlockPool(config) if counted else None)
        self.slow = NaiveScheduler(config)
        self.requests: dict[str, tuple[Request, Naive]] = {}
        self.answers: dict[str, int] = {}
        self.produced: dict[str, int] = {}
        self.keys: dict[str, list] = {}
        self.decoding: dict[Request, None] = {}  # the standing set, rebuilt from the batches' changes alone
        self.in_flight: list[tuple[Batch, tuple]] = []
        self.steps = 0

    def add(self, prompt, answer, *, max_tokens=None, priority=0, arrival=0.0, keys=(), given=None):
        """`given`: how many of `keys` the scheduler is told, the rest being the request's own."""
        name = str(len(self.requests))
        max_tokens = max_tokens or answer
        request = Request(name, prompt, max_tokens, arrival, priority, list(keys[:given]), given is not None)
        naive = Naive(name, prompt, max_tokens, arrival, priority, list(keys), len(self.requests))
        self.fast.add(request)
        self.slow.add(naive)
        self.requests[name] = request, naive
        self.answers[name] = min(answer, max_tokens, self.config.max_model_len - prompt)
        self.produced[name] = 0
        self.keys[name] = list(keys)
        self.learn_keys(name)
        return name

    def learn_keys(self, name):
        """A block's key is known once all its tokens are."""
        full = (self.requests[name][0].num_prompt_tokens + self.produced[name]) // self.config.block_size
        for request in self.requests[name]:
            if isinstance(request, Naive):
                request.keys[:] = self.keys[name][:full]
            elif not request.unshared_rest:
                request.block_keys[:] = self.keys[name][:full]

    def alive(self):
        return [n for n, (r, _) in self.requests.items() if r.status is not Status.FINISHED]

    def abort(self, name):
        request, naive = self.requests[name]
        self.fast.abort(request)
        self.slow.abort(naive)
        self.check()

    def propose(self, name, drafts):
        request, naive = self.requests[name]
        if request.status is Status.RUNNING and request.num_tokens - 1 == naive.computed >= request.num_prompt_tokens:
            self.fast.propose(request, drafts)
            naive.drafts = drafts

    def schedule(self):
        batch, step = self.fast.schedule(), self.slow.schedule()
        rows = self.rows_of(batch)
        assert rows == {r.name: row for r, row in step[0].items()}
        assert [r.request_id for r in batch.preempted] == [r.name for r in step[1]]
        assert [r.request_id for r in batch.admitted] == [r.name for r in step[2]]
        self.check_work(batch, rows)
        self.check()
        if rows:
            self.in_flight.append((batch, step))
        self.steps += 1
        return batch

    def rows_of(self, batch):
        """name -> (start, tokens, is_decode, samples), the plain decodes by following the batch's changes."""
        if not batch.is_empty:
            for request in batch.left:
                self.decoding.pop(request, None)
            self.decoding.update(dict.fromkeys(batch.joined))
        rows = {c.request.request_id: (c.start, c.num_tokens, c.is_decode, c.samples) for c in batch.chunks}
        if not batch.is_empty:
            rows |= {r.request_id: (r.num_computed_tokens - 1, 1, True, True) for r in self.decoding}
        return rows

    def check_work(self, batch, rows):
        prefill = [r for r in rows.values() if not r[2]]
        decode = [r for r in rows.values() if r[2]]
        work = batch.work
        assert work.num_prefill_seqs == len(prefill)
        assert work.num_decode_seqs == len(decode)
        assert work.prefill_tokens == sum(n for _, n, _, _ in prefill)
        assert work.prefill_kv_tokens == sum(start for start, *_ in prefill)
        assert work.prefill_attn_pairs == sum(start + i + 1 for start, n, _, _ in prefill for i in range(n))
        assert work.decode_tokens == sum(n for _, n, _, _ in decode)
        assert work.decode_kv_tokens == sum(start for start, *_ in decode)
        assert work.decode_kv_max == max([start for start, *_ in decode], default=0)
        assert work.num_tokens <= self.config.max_num_batched_tokens
        assert batch.num_running <= self.config.max_num_seqs

    def complete(self, pick=lambda n: 0):
        """Complete the oldest step; `pick(n)` says how many of n drafts were accepted."""
        batch, step = self.in_flight.pop(0)
        void = self.fast.voided(batch)
        finished, accepted, accepted_slow = [], {}, {}
        for naive, (_, n, decodes, samples) in step[0].items():
            request = self.requests[naive.name][0]
            if not samples or request in void:
                continue
            took = pick(n - 1) if decodes and n > 1 else 0
            if n > 1 and decodes:
                accepted[request], accepted_slow[naive] = took, took
            self.produced[naive.name] += 1 + took
            self.learn_keys(naive.name)
            if self.produced[naive.name] >= self.answers[naive.name]:
                finished.append(request)
        self.fast.complete(batch, finished, accepted)
        self.slow.complete(step, [self.requests[r.request_id][1] for r in finished], accepted_slow)
        self.check()

    def check(self):
        blocks = self.fast.blocks
        assert blocks.num_free == len(self.slow.free)
        assert blocks.num_free + blocks.num_used == self.config.usable_blocks
        assert [r.request_id for r in self.fast.running] == [r.name for r in self.slow.running]
        assert len(self.fast.waiting) == len(self.slow.waiting)
        if not self.counted:
            assert blocks.num_used == len({b for r in self.fast.running for b in r.block_ids})
        for request, naive in self.requests.values():
            if request.status is not Status.FINISHED:
                assert request.num_computed_tokens == naive.computed, request.request_id
                assert request.num_tokens == naive.known + naive.pending
                assert blocks.num_owned(request) == len(naive.blocks)
                assert request.num_preemptions == naive.preempted
                assert request.num_cached_tokens == naive.cached
            else:
                assert not request.block_ids

    def drain(self, max_steps=2_000):
        """Run to the end, synchronously or with one step scheduled ahead; every request must end."""
        depth = 2 if self.config.async_scheduling else 1
        while (self.fast.has_work or self.in_flight) and self.steps < max_steps:
            batch = self.schedule()
            if self.in_flight and (batch.is_empty or len(self.in_flight) >= depth):
                self.complete()
        assert not self.alive(), f"not finished after {self.steps} steps: {self.alive()}"
        assert self.fast.blocks.num_used == 0
