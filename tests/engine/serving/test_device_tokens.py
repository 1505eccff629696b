"""The device's runner gives the CPU runner's tokens, however requests are batched, padded, preempted or launched ahead.

It runs on a CPU here: what differs on a GPU are the kernels, the graphs and the clock.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.sampling_params import SamplingParams
from tests.engine.devices import device_engine
from tests.engine.models import greedy_tokens
from tests.engine.serving.test_llm_tokens import COUNT, PROMPTS, VARIANTS, answers, engine, prompts_of


@pytest.fixture(scope="module")
def expected(tiny_reference):
    return [greedy_tokens(tiny_reference, prompt, COUNT) for prompt in PROMPTS]


@pytest.mark.parametrize("pads", [False, True])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_tokens_are_those_of_an_independent_implementation(tiny, expected, config, pads):
    llm = device_engine(tiny, pads=pads, **config)
    assert answers(llm) == expected
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks
    assert not llm.has_work


@settings(max_examples=25, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    block_size=st.sampled_from([1, 3, 8]),
    spare_blocks=st.integers(0, 30),
    budget=st.integers(7, 60),
    switches=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_no_configuration_changes_a_token(tiny, tiny_reference, **drawn):
    lengths, block_size, (caching, ahead, pads) = drawn["lengths"], drawn["block_size"], drawn["switches"]
    prompts, count = prompts_of(lengths, seed=len(lengths)), 9
    needed = -(-(max(lengths) + count - 1) // block_size)
    llm = device_engine(
        tiny,
        pads=pads,
        num_blocks=1 + needed + drawn["spare_blocks"],
        block_size=block_size,
        max_num_seqs=7,
        max_num_batched_tokens=drawn["budget"],
        enable_prefix_caching=caching,
        async_scheduling=ahead,
    )
    assert answers(llm, prompts, count) == [greedy_tokens(tiny_reference, prompt, count) for prompt in prompts]
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks


def outcomes(llm, arrivals, params):
    """Tokens of each request, where request i comes after `arrivals[i]` steps."""
    tokens = {}
    steps = 0
    while llm.has_work or len(tokens) < len(arrivals):
        while len(tokens) < len(arrivals) and arrivals[len(tokens)] <= steps:
            tokens[llm.add(PROMPTS[len(tokens) % len(PROMPTS)], params[len(tokens)])] = []
        for request, token in llm.step().tokens.items():
            tokens[request].append(token)
        steps += 1
    return list(tokens.values())


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("num_blocks", [12, 100])
def test_drawn_and_guarded_and_stopped_requests_come_and_go_alike(tiny, ahead, num_blocks):
    params = [
        SamplingParams(max_tokens=5 + 3 * i, temperature=0.7 * (i % 3), top_k=5 * (i % 2), top_p=1 - 0.1 * (i % 2),
                       seed=i, min_tokens=i % 4, stop_token_ids=tuple(range(6 * i, 6 * i + 25)))
        for i in range(12)
    ]  # fmt: skip
    arrivals = sorted(3 * i % 17 for i in range(12))
    config = {"num_blocks": num_blocks, "async_scheduling": ahead, "max_num_batched_tokens": 40}
    got = outcomes(device_engine(tiny, **config), arrivals, params)
    assert got == outcomes(engine(tiny, **config), arrivals, params)
    assert len({len(tokens) for tokens in got}) > 3


@pytest.mark.parametrize("ahead", [False, True])
def test_aborting_one_leaves_the_others_alone(tiny, expected, ahead):
    llm = device_engine(tiny, async_scheduling=ahead)
    keep, drop, late = (llm.add(PROMPTS[-1], SamplingParams(max_tokens=COUNT)) for _ in range(3))
    tokens = []
    for step in range(200):
        if step == 3:
            assert llm.abort(drop).finish_reason == "abort" and llm.abort(drop) is None
        if step == 5:
            llm.abort(late)
        if not llm.has_work:
            break
        result = llm.step()
        tokens += [result.tokens[keep]] if keep in result.tokens else []
        assert step < 3 or drop not in result.tokens
    assert tokens == expected[-1]
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks


def test_batches_are_those_of_the_other_runner(tiny):
    """The simulator replays either engine's steps: what is decided must not depend on who executes it."""

    def batches(llm):
        for prompt in PROMPTS:
            llm.add(prompt, SamplingParams(max_tokens=COUNT))
        while llm.has_work:
            batch = llm.step().batch
            yield batch.step, batch.work, len(batch.preempted), batch.kv_blocks_used

    for config in ({}, {"async_scheduling": True}, {"async_scheduling": True, "num_blocks": 8}):
        assert list(batches(device_engine(tiny, **config))) == list(batches(engine(tiny, **config)))
