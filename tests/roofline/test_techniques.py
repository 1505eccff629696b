from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline.analytic import AnalyticStepTime
from roofline.errors import InputError
from roofline.hardware import Efficiency, accelerator
from roofline.step_time import BatchWork
from roofline.techniques import (
    KvKeep,
    Speculation,
    attention_traffic,
    chunked_prefill,
    extend_context,
    pipeline_bubble,
    prompt_passes,
)
from tests.roofline.shapes import DEEPSEEK_V2_LITE, LLAMA_8B, LLAMA_70B, SMALL
from tests.roofline.test_analytic import decode

H100 = accelerator("H100")
TARGET = AnalyticStepTime(LLAMA_8B, H100, Efficiency.prior(H100))
DRAFT = AnalyticStepTime(SMALL, H100, Efficiency.prior(H100))


@given(st.floats(0, 0.999), st.integers(1, 16))
def test_expected_tokens_follow_the_closed_form(acceptance, drafts):
    expected = (1 - acceptance ** (drafts + 1)) / (1 - acceptance)
    assert Speculation(acceptance, drafts).tokens_per_step == pytest.approx(expected)


def test_expected_tokens_at_the_ends():
    assert Speculation(0.0, 4).tokens_per_step == 1
    assert Speculation(1.0, 4).tokens_per_step == 5
    assert Speculation(0.8, 4).tokens_per_step == pytest.approx(3.3616)  # the 3.36 of the paper's example


def test_speculation_gains_on_few_sequences_and_loses_on_many():
    speculation = Speculation(0.7, 4, DRAFT)
    batch = speculation.break_even_batch(TARGET, 1024)
    assert batch is not None
    assert batch > 1
    assert speculation.speedup(TARGET, decode(batch, 1024)) >= 1
    assert speculation.speedup(TARGET, decode(batch + 1, 1024)) < 1
    assert Speculation(0.0, 4, DRAFT).break_even_batch(TARGET, 1024) == 0


def test_free_drafts_that_are_always_right_gain_at_first_and_compute_ends_it():
    speculation = Speculation(1.0, 3)
    assert 3.5 < speculation.speedup(TARGET, decode(1, 1024)) < 4
    assert speculation.speedup(TARGET, decode(2048, 64)) < 1.6
    assert speculation.break_even_batch(TARGET, 1024) is None


@given(st.integers(1, 20_000), st.integers(1, 4096), st.floats(0, 1))
def test_passes_of_a_prompt_compute_each_token_and_pair_once(prompt, chunk, hits):
    passes = prompt_passes(prompt, chunk, hits)
    cached = min(int(hits * prompt), prompt - 1)
    assert sum(work.prefill_tokens for work in passes) == prompt - cached
    pairs = prompt * (prompt + 1) // 2 - cached * (cached + 1) // 2
    assert sum(work.prefill_attn_pairs for work in passes) == pairs
    assert all(1 <= work.prefill_tokens <= chunk for work in passes)


def test_prefix_hits_save_their_share_of_the_prompt():
    whole, hit = (sum(TARGET.seconds(work) for work in prompt_passes(8192, None, ratio)) for ratio in (0.0, 0.9))
    assert 0.1 < hit / whole < 0.2


def test_smaller_chunks_let_the_others_wait_less_and_the_prompt_longer():
    small, large = (chunked_prefill(TARGET, prompt_passes(8192, chunk), decode(64, 1024)) for chunk in (512, 4096))
    assert (small.steps, large.steps) == (16, 2)
    assert small.longest_step_s < 0.3 * large.longest_step_s
    assert small.ttft_s > large.ttft_s


def test_flash_attention_moves_no_scores():
    """32 heads x 4096 x 4097 / 2 scores of 2 bytes, moved 4 times, against 4096 tokens of q, k, v and answer."""
    traffic = attention_traffic(LLAMA_8B, 4096, 0)
    assert traffic.flash == 4096 * (4096 + 4096 + 2 * 1024) * 2
    assert traffic.naive - traffic.flash == 4 * 32 * 4096 * 4097 / 2 * 2
    assert traffic.naive > 20 * traffic.flash


def test_flash_decoding_pays_for_its_splits_with_little():
    traffic = attention_traffic(LLAMA_8B, 1, 65_536, splits=16)
    assert traffic.flash < traffic.flash_decoding < 1.01 * traffic.flash
    assert attention_traffic(LLAMA_8B, 1, 65_536, splits=1).flash_decoding == traffic.flash
    assert attention_traffic(DEEPSEEK_V2_LITE, 1, 1000).flash == (1001 * 576 + 16 * (192 + 128)) * 2


def test_longer_contexts():
    ntk, yarn = (extend_context(LLAMA_70B, 4 * 131_072, method) for method in ("ntk", "yarn"))
    assert ntk.rope_theta == pytest.approx(LLAMA_70B.rope_theta * 4 ** (128 / 126))
    assert ntk.attention_scale == 1
    assert yarn.rope_theta == LLAMA_70B.rope_theta
    assert yarn.attention_scale == pytest.approx(0.1 * log(4) + 1)
    assert ntk.kv_bytes == yarn.kv_bytes == 327_680 * 4 * 131_072
    assert ntk.feasible
    assert yarn.feasible
    assert not extend_context(LLAMA_70B, 5 * 131_072, "ntk").feasible
    unchanged = extend_context(LLAMA_70B, 4096, "yarn")
    assert (unchanged.factor, unchanged.attention_scale, unchanged.remark) == (1.0, 1.0, "no change is needed")


@given(st.integers(1, 100_000), st.integers(0, 64), st.integers(1, 8192), st.floats(0.01, 1))
def test_a_cache_never_keeps_more_than_there_is(context, sinks, window, ratio):
    for keep in (KvKeep(sinks, window), KvKeep(ratio=ratio), KvKeep(sinks, window, ratio)):
        assert 1 <= keep.tokens(context) <= min(context, 10**9 if keep.window is None else sinks + window)
    assert KvKeep().tokens(context) == context


def test_sinks_and_a_window_stop_the_growth_of_a_step():
    keep = KvKeep(sinks=4, window=2044)
    assert keep.decode_work(decode(8, 100_000)) == decode(8, 2048)
    assert keep.decode_work(decode(8, 1000)) == decode(8, 1000)
    assert TARGET.seconds(keep.decode_work(decode(64, 32_768))) < 0.4 * TARGET.seconds(decode(64, 32_768))


def test_bubble():
    assert pipeline_bubble(4, 1) == 0.75
    assert pipeline_bubble(1, 1) == 0
    assert pipeline_bubble(4, 61) == pytest.approx(3 / 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Speculation(1.2, 4), "acceptance is 1.2"),
        (lambda: Speculation(0.5, 0), "drafts 0 tokens"),
        (lambda: prompt_passes(0), "prompt of 0 tokens"),
        (lambda: prompt_passes(8, 0), "chunks of 0"),
        (lambda: prompt_passes(8, None, 1.5), "hit ratio is 1.5"),
        (lambda: extend_context(LLAMA_8B, 10, "magic"), "'magic' is not known; use one of ntk, yarn"),
        (lambda: extend_context(LLAMA_8B, 0, "ntk"), "context of 0 tokens"),
        (lambda: KvKeep(ratio=0), "ratio of 0"),
        (lambda: pipeline_bubble(0, 1), "0 stages"),
    ],
)
def test_what_has_no_meaning_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_work_without_decodes_keeps_nothing():
    assert KvKeep(ratio=0.5).decode_work(BatchWork(1, 8)) == BatchWork(1, 8)
