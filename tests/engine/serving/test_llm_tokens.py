"""However requests are paged, chunked, batched, preempted or scheduled: the tokens are those of an independent
implementation that runs each one alone, whole and unpaged."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.config import EngineConfig
from engine.core.sampling_params import SamplingParams
from engine.serving.llm import LLM
from tests.engine.models import greedy_tokens

COUNT = 24


def prompts_of(lengths, seed=0):
    """Prompts that share beginnings, so that prefix caching has something to find."""
    tokens = [(seed + 7 * i * i + 3 * i) % 101 for i in range(300)]
    return [tokens[:length] if i % 2 else tokens[: length // 2] + tokens[-(length - length // 2) :]
            for i, length in enumerate(lengths)]  # fmt: skip


PROMPTS = prompts_of([1, 5, 16, 17, 33, 64])


@pytest.fixture(scope="module")
def expected(tiny_reference):
    return [greedy_tokens(tiny_reference, prompt, COUNT) for prompt in PROMPTS]


def answers(llm, prompts=PROMPTS, count=COUNT):
    done = llm.generate(prompts, SamplingParams(max_tokens=count))
    return [list(completion.token_ids) for completion in done]


def engine(model, **config):
    return LLM(model, None, EngineConfig(**{"num_blocks": 100, "max_model_len": 256, "max_num_seqs": 8} | config))


VARIANTS = {
    "plain": {},
    "chunked": {"max_num_batched_tokens": 9},
    "whole": {"enable_chunked_prefill": False, "max_num_batched_tokens": 256},
    "one at a time": {"max_num_seqs": 1},
    "without prefix cache": {"enable_prefix_caching": False},
    "blocks of 1": {"block_size": 1, "num_blocks": 600},
    "blocks of 5": {"block_size": 5},
    "preempting": {"num_blocks": 8, "enable_prefix_caching": False},
    "preempting, prefix cache": {"num_blocks": 8},
    "preempting in chunks": {"num_blocks": 30, "block_size": 4, "max_num_batched_tokens": 10},
    "decided ahead": {"async_scheduling": True},
    "decided ahead, chunked": {"async_scheduling": True, "max_num_batched_tokens": 9},
    "decided ahead, preempting": {"async_scheduling": True, "num_blocks": 8},
    "priority": {"policy": "priority", "num_blocks": 8},
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_tokens_are_those_of_an_independent_implementation(tiny, expected, config):
    llm = engine(tiny, **config)
    assert answers(llm) == expected
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks
    assert not llm.has_work


def test_preempting_variants_do_preempt(tiny):
    llm = engine(tiny, num_blocks=8)
    requests = [llm.add(prompt, SamplingParams(max_tokens=COUNT)) for prompt in PROMPTS]
    while llm.has_work:
        llm.step()
    assert sum(request.num_preemptions for request in requests) > 0


def test_a_second_asking_hits_the_prefix_cache_and_answers_the_same(tiny, expected):
    llm = engine(tiny)
    assert answers(llm) == expected
    request = llm.add(PROMPTS[-1], SamplingParams(max_tokens=COUNT))
    result = llm.step()
    # 64 tokens in blocks of 16: the last block is computed again, since its last token is to be sampled from.
    assert request.num_cached_tokens == result.batch.cached_tokens == 48
    tokens = [result.tokens[request]]
    while llm.has_work:
        tokens.append(llm.step().tokens[request])
    assert tokens == expected[-1]


def test_output_blocks_become_prefix_hits(tiny, expected):
    llm = engine(tiny)
    answers(llm)
    request = llm.add(PROMPTS[-1] + expected[-1], SamplingParams(max_tokens=1))
    llm.step()
    assert request.num_cached_tokens == 80  # 64 of the prompt and the first full block of the 24 of the answer


@settings(max_examples=15, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    block_size=st.sampled_from([1, 3, 8]),
    spare_blocks=st.integers(0, 30),
    budget=st.integers(7, 60),
    switches=st.tuples(st.booleans(), st.booleans()),
)
def test_no_configuration_changes_a_token(tiny, tiny_reference, **drawn):
    lengths, block_size, (caching, ahead) = drawn["lengths"], drawn["block_size"], drawn["switches"]
    prompts, count = prompts_of(lengths, seed=len(lengths)), 9
    needed = -(-(max(lengths) + count - 1) // block_size)
    llm = engine(
        tiny,
        num_blocks=1 + needed + drawn["spare_blocks"],
        block_size=block_size,
        max_num_seqs=7,
        max_num_batched_tokens=drawn["budget"],
        enable_prefix_caching=caching,
        async_scheduling=ahead,
    )
    assert answers(llm, prompts, count) == [greedy_tokens(tiny_reference, prompt, count) for prompt in prompts]
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks
