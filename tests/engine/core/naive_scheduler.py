"""The scheduling policy written out longhand: every request is walked in every step, every count is explicit.

It shares no code with `engine.core.scheduler` and keeps no state that could be derived. Slow and obviously right.
"""

from dataclasses import dataclass, field


@dataclass(eq=False)
class Naive:
    """A request with every count explicit; `known` excludes tokens in flight."""

    name: str
    prompt: int
    max_tokens: int
    arrival: float
    priority: int
    keys: list
    seq: int
    known: int = 0
    pending: int = 0  # tokens that steps in flight are about to yield (drafts counted as accepted)
    computed: int = 0
    drafts: int = 0
    blocks: list = field(default_factory=list)
    keyed: int = 0
    preempted: int = 0
    cached: int = 0


class NaiveScheduler:
    """vLLM V1's loop over plain lists."""

    def __init__(self, config):
        self.c = config
        self.free = list(range(1, config.num_blocks))
        self.key_of = {}
        self.owners = {}
        self.waiting, self.running = [], []
        self.in_flight = []
        self.void = {}

    # what a caller does
    def add(self, r):
        r.known = r.prompt
        self.waiting.append(r)

    def abort(self, r):
        if r in self.running:
            self.end(r)
        else:
            self.waiting.remove(r)

    def end(self, r):
        self.running.remove(r)
        self.release(r)
        for step in self.in_flight:
            self.void.setdefault(id(step), set()).add(r)

    def schedule(self):
        step = self.decide()
        while step[1] and not step[0] and not self.in_flight:
            again = self.decide()
            step = (again[0], step[1] + again[1], again[2])
            if again[0]:
                self.in_flight[-1] = step
            elif not again[1]:
                break
        return step

    def decide(self):
        budget, given, preempted, admitted = self.c.max_num_batched_tokens, {}, [], []
        i = 0
        while i < len(self.running) and budget > 0:
            r = self.running[i]
            n = min(self.wanted(r), budget)
            gone = False
            while n and self.short(r, n) > len(self.free):
                victim = self.victim()
                if self.running.index(victim) < i:
                    i -= 1
                self.running.remove(victim)
                budget += given.pop(victim, 0)
                self.preempt(victim)
                preempted.append(victim)
                gone = victim is r
                if gone:
                    break
            if gone:
                break
            if n:
                self.take(r, self.short(r, n))
                given[r] = n
                budget -= n
            i += 1
        if not preempted:
            budget = self.admit(given, budget, admitted)
        return self.apply(given, preempted, admitted)

    def admit(self, given, budget, admitted):
        c = self.c
        while self.waiting and budget > 0 and len(self.running) < c.max_num_seqs:
            r = self.head()
            hit = self.hit(r)
            n = r.known - len(hit) * c.block_size
            if c.long_prefill_token_threshold:
                n = min(n, c.long_prefill_token_threshold)
            if n > budget and not c.enable_chunked_prefill:
                break
            n = min(n, budget)
            whole = -(-(r.known + c.num_lookahead_tokens) // c.block_size)
            idle = sum(1 for b in hit if b in self.free)
            reserve = int(c.watermark * c.num_blocks) if self.running else 0
            if whole - len(hit) + idle + reserve > len(self.free):
                break
            self.waiting.remove(r)
            self.running.append(r)
            admitted.append(r)
            for b in hit:
                if b in self.free:
                    self.free.remove(b)
                self.owners[b] = [*self.owners.get(b, []), r]
            r.blocks = list(hit)
            r.keyed = len(hit)
            r.computed = len(hit) * c.block_size
            if not r.preempted:
                r.cached = r.computed
            self.take(r, self.short(r, n))
            given[r] = n
            budget -= n
        return budget

    def apply(self, given, preempted, admitted):
        rows = {}
        for r, n in given.items():
            start, total = r.computed, r.known + r.pending
            decodes = r not in admitted and start >= r.prompt and total - start == 1
            drafts = n - 1 if decodes else 0
            r.computed += n
            r.drafts = 0
            samples = r.computed - drafts == total
            rows[r] = (start, n, decodes, samples)
            self.key(r)
            if samples:
                r.pending += 1 + drafts
        step = (rows, preempted, admitted)
        if rows:
            self.in_flight.append(step)
        return step

    def complete(self, step, finished, accepted):
        assert self.in_flight[0] is step
        self.in_flight.pop(0)
        void = self.void.pop(id(step), set())
        for r, (_, n, decodes, samples) in step[0].items():
            if samples and r not in void:
                drafts = n - 1 if decodes else 0
                took = accepted.get(r, 0)
                r.pending -= 1 + drafts
                r.computed -= drafts - took
                r.known += 1 + took
        for r in [r for r in self.running if r in finished]:
            self.end(r)

    # how it decides
    def wanted(self, r):
        limit = min(r.prompt + r.max_tokens, self.c.max_model_len)
        total = r.known + r.pending
        if total >= limit:
            return 0
        n = total + r.drafts - r.computed
        if self.c.long_prefill_token_threshold:
            n = min(n, self.c.long_prefill_token_threshold)
        return min(n, limit - 1 - r.computed)

    def short(self, r, n):
        return max(0, -(-(r.computed + n + self.c.num_lookahead_tokens) // self.c.block_size) - len(r.blocks))

    def victim(self):
        if self.c.policy == "priority":
            return max(self.running, key=lambda r: (r.priority, r.arrival))
        return self.running[-1]

    def head(self):
        if self.c.policy == "priority":
            return min(self.waiting, key=lambda r: (r.priority, r.arrival, r.seq))
        return self.waiting[0]

    def preempt(self, r):
        self.release(r)
        for step in self.in_flight:
            self.void.setdefault(id(step), set()).add(r)
        r.pending = r.computed = r.drafts = 0
        r.preempted += 1
        self.waiting.insert(0, r)

    def hit(self, r):
        found = []
        if self.c.enable_prefix_caching:
            for key in r.keys[: (r.known - 1) // self.c.block_size]:
                match = [b for b, k in self.key_of.items() if k == key]
                if not match:
                    break
                found.append(match[0])
        return found

    def take(self, r, count):
        for _ in range(count):
            b = self.free.pop(0)
            self.key_of.pop(b, None)
            self.owners[b] = [r]
            r.blocks.append(b)

    def release(self, r):
        for b in reversed(r.blocks):
            self.owners[b].remove(r)
            if not self.owners[b]:
                self.free.append(b)
        r.blocks, r.keyed = [], 0

    def key(self, r):
        if self.c.enable_prefix_caching:
            full = min(r.computed // self.c.block_size, len(r.keys))
            for i in range(r.keyed, full):
                self.key_of.pop(r.blocks[i], None)
                self.key_of[r.blocks[i]] = r.keys[i]
            r.keyed = max(r.keyed, full)
