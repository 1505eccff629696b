"""The scheduler agrees with the naive one in every decision, and keeps its laws."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.block_pool import BlockPool
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.scheduler import Scheduler
from roofline.errors import CapacityError, InputError
from tests.engine.core.scheduler_pair import Pair


@st.composite
def configs(draw):
    block_size = draw(st.sampled_from([1, 2, 4, 16]))
    max_num_seqs = draw(st.integers(1, 12))
    chunked = draw(st.booleans())
    max_model_len = draw(st.integers(8, 64))
    budget = draw(st.integers(max_num_seqs, 80))
    lookahead = draw(st.sampled_from([0, 0, 0, 3]))
    floor = -(-(max_model_len + lookahead) // block_size) + 1
    return EngineConfig(
        num_blocks=floor + draw(st.integers(0, 3 * floor)),
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget if chunked else max(budget, max_model_len),
        max_model_len=max_model_len,
        enable_prefix_caching=draw(st.booleans()),
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 1, 5, 16])),
        async_scheduling=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "fcfs", "priority"])),
        watermark=draw(st.sampled_from([0.0, 0.0, 0.1])),
        num_lookahead_tokens=lookahead,
    )


def add_random(pair: Pair, data):
    config = pair.config
    prompt = data.draw(st.integers(1, config.max_model_len - 1), "prompt")
    answer = data.draw(st.integers(1, 24), "answer")
    slack = data.draw(st.sampled_from([0, 0, 5]), "max_tokens beyond the answer")
    group = data.draw(st.integers(0, 2), "shared prefix")
    shared = data.draw(st.integers(0, prompt + answer), "shared tokens") // config.block_size
    given = min(shared, prompt // config.block_size) if data.draw(st.booleans(), "unshared rest") else None
    unkeyed = given is None and data.draw(st.booleans(), "output unkeyed")
    filled = prompt if unkeyed else prompt + answer
    shared = shared if given is None else given
    name = len(pair.requests)
    keys = [(group, i) if i < shared else (group, name, i) for i in range(filled // config.block_size)]
    priority = data.draw(st.integers(0, 2), "priority")
    pair.add(prompt, answer, max_tokens=answer + slack, priority=priority, arrival=float(name), keys=keys, given=given)


@settings(max_examples=400, deadline=None)
@given(configs(), st.data())
def test_every_decision_equals_the_naive_schedulers(config, data):
    counted = not config.enable_prefix_caching and data.draw(st.booleans(), "counted blocks")
    pair = Pair(config, counted)
    depth = 2 if config.async_scheduling else 1
    drafting = not (config.async_scheduling or counted)
    for _ in range(data.draw(st.integers(5, 60), "steps")):
        for _ in range(data.draw(st.sampled_from([0, 0, 0, 1, 3]), "arrivals")):
            add_random(pair, data)
        if pair.alive() and data.draw(st.integers(0, 15), "abort") == 0:
            pair.abort(data.draw(st.sampled_from(pair.alive())))
        if drafting and pair.alive() and data.draw(st.integers(0, 3), "draft") == 0:
            pair.propose(data.draw(st.sampled_from(pair.alive())), data.draw(st.integers(0, 4)))
        pair.schedule()
        late = data.draw(st.booleans(), "abort in flight")
        if pair.alive() and late and data.draw(st.integers(0, 7)) == 0:
            pair.abort(data.draw(st.sampled_from(pair.alive())))
        while len(pair.in_flight) >= depth:
            pair.complete(lambda n: data.draw(st.integers(0, n), "accepted"))
    pair.drain()


def test_a_decode_is_not_touched_while_it_only_decodes():
    scheduler = Scheduler(EngineConfig(num_blocks=2000, max_num_seqs=64))
    requests = [Request(str(i), 16, 400) for i in range(64)]
    for request in requests:
        scheduler.add(request)
    for _ in range(3):
        scheduler.complete(scheduler.schedule())
    before = [dataclasses.replace(r) for r in requests]
    batch = scheduler.schedule()
    assert batch.work.num_decode_seqs == 64
    assert not batch.chunks
    assert not batch.grown
    for request, old in zip(requests, before, strict=True):
        assert request.num_computed_tokens == old.num_computed_tokens
        assert request.num_computed_settled == old.num_computed_settled
        assert request.anchor == old.anchor


def test_drafts_ahead_of_plain_decodes_take_the_budget_first():
    pair = Pair(EngineConfig(num_blocks=200, max_num_seqs=4, max_num_batched_tokens=4))
    for _ in range(4):
        pair.add(1, 30)
    for _ in range(3):
        pair.schedule()
        pair.complete()
    pair.propose("0", 2)
    batch = pair.schedule()
    assert [c.num_tokens for c in batch.chunks] == [3]
    assert batch.work.num_decode_seqs == 2, "one plain decode fits behind the three tokens, two starve"
    pair.complete()
    pair.drain()


def test_asynchronous_scheduling_sees_an_arrival_one_decision_later():
    def steps_until_scheduled(async_scheduling):
        config = EngineConfig(num_blocks=100, async_scheduling=async_scheduling)
        pair = Pair(config)
        pair.add(16, 50)
        depth = 2 if async_scheduling else 1
        for _ in range(4):
            pair.schedule()
            if len(pair.in_flight) == depth:
                pair.complete()
        running_now = pair.in_flight[0][0].step if pair.in_flight else pair.fast._step
        pair.add(16, 50)
        batch = pair.schedule()
        return batch.step - running_now

    assert steps_until_scheduled(True) == steps_until_scheduled(False) + 1


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"block_size": 0}, "block_size is 0"),
        ({"num_blocks": 1}, "num_blocks is 1"),
        ({"watermark": 1.0}, "watermark is 1.0"),
        ({"policy": "lifo"}, "policy is 'lifo'"),
        ({"max_num_seqs": 4096}, "below max_num_seqs 4096"),
        ({"enable_chunked_prefill": False}, "without chunked prefill"),
        ({"long_prefill_token_threshold": -1}, "must not be negative"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, word):
    with pytest.raises(InputError, match=word):
        EngineConfig(**{"num_blocks": 100, **fields})


def test_a_request_that_could_never_run_is_refused():
    scheduler = Scheduler(EngineConfig(num_blocks=5, max_model_len=100))
    with pytest.raises(CapacityError, match=r"need 5 KV blocks of 16, and there are 4.*num_blocks to 6"):
        scheduler.add(Request("r", 60, 20))
    with pytest.raises(CapacityError, match="no room for an answer"):
        scheduler.add(Request("r", 100, 1))
    with pytest.raises(InputError, match="max_tokens is 0"):
        Request("r", 10, 0)
    assert not scheduler.has_work


@st.composite
def decode_runs(draw):
    """A pair of identical schedulers in mid-flight: one will step, one will be fast-forwarded."""
    config = draw(configs())
    counted = not config.enable_prefix_caching and draw(st.booleans())
    twins = Scheduler(config), Scheduler(config, BlockPool(config) if counted else None)
    for i in range(draw(st.integers(1, 10))):
        prompt = draw(st.integers(1, config.max_model_len - 1))
        output = draw(st.integers(1, 40))
        group = draw(st.sampled_from(["shared", i]))
        keys = [(group, j) for j in range((prompt + draw(st.sampled_from([0, output]))) // config.block_size)]
        for twin in twins:
            twin.add(Request(str(i), prompt, output, priority=i % 3, block_keys=list(keys)))
    return config, twins, draw(st.integers(1, 30))


def counts(scheduler):
    """What each running request has; which of the free blocks it got depends on the order and decides nothing."""
    return [
        (r.request_id, r.num_computed_tokens, r.num_tokens, scheduler.blocks.num_owned(r), r.num_keyed_blocks)
        for r in scheduler.running
    ]


@settings(max_examples=300, deadline=None)
@given(decode_runs())
def test_fast_forward_equals_stepping(case):
    _, (stepping, jumping), limit = case
    for _ in range(200):
        batches = stepping.schedule(), jumping.schedule()
        assert batches[0].work == batches[1].work
        if batches[0].is_empty:
            break
        k = jumping.steady_steps(limit)
        if k:
            last = batches[0]
            for _ in range(k):
                stepping.complete(last)
                last = stepping.schedule()
            batches = last, jumping.fast_forward(k)[-1]
        snapshot = [
            (b.step, b.work, b.kv_blocks_used, b.num_running, b.num_waiting, s.blocks.num_free, counts(s))
            for b, s in zip(batches, (stepping, jumping), strict=True)
        ]
        assert snapshot[0] == snapshot[1]
        for twin, batch in zip((stepping, jumping), batches, strict=True):
            ended = [r for r in twin.running if r.num_tokens >= r.token_limit]
            twin.complete(batch, ended)
