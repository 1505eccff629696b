"""The paged attention kernels against attention written out, on shapes that no tile divides; and laws."""

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from engine.kernels.paged_decode import paged_decode
from engine.kernels.paged_prefill import paged_prefill
from tests.engine.kernels.attention_cases import (
    AttentionCase,
    assert_near,
    check_decode,
    check_prefill,
    decode_case,
    decode_inputs,
    decoded,
    inputs,
    prefilled,
    written_out,
)

RAGGED = (5, 0, 70, 1, 64)
BF16, FP16 = torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"group": 1, "head_dim": 96, "dtype": BF16},
        {"group": 4, "head_dim": 128, "block_size": 128, "dtype": BF16},
        {"group": 7, "head_dim": 256, "block_size": 32, "dtype": FP16},
        {"group": 8, "dtype": BF16, "window": 40, "block_size": 24},
        {"group": 4, "dtype": BF16, "is_fp8": True},
        {"head_dim": 96, "is_fp8": True, "slots": 12},
        {"slots": 12},
        {"slots": 16, "window": 66, "scale": 0.3, "dtype": BF16},
    ],
    ids=str,
)
def test_decode(device, settings):
    check_decode(device, decode_case(RAGGED, **settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"group": 1, "head_dim": 96, "dtype": BF16},
        {"group": 4, "head_dim": 128, "block_size": 64, "dtype": BF16},
        {"group": 7, "head_dim": 256, "block_size": 32, "dtype": FP16},
        {"group": 8, "dtype": BF16, "window": 20, "block_size": 24},
        {"group": 4, "dtype": BF16, "is_fp8": True, "scale": 0.3},
        {"window": 33, "is_fp8": True},
    ],
    ids=str,
)
def test_prefill(device, settings):
    check_prefill(device, AttentionCase(((0, 9), (50, 1), (30, 23), (0, 0), (64, 2)), **settings))


@settings(max_examples=7)
@drawn(
    contexts=st.lists(st.integers(0, 140), min_size=1, max_size=4).filter(any),
    slots=st.integers(1, 20),
    window=st.sampled_from([0, 1, 50, 64]),
    block_size=st.sampled_from([16, 40, 64, 256]),
)
def test_decode_of_any_batch(device, contexts, slots, window, block_size):
    check_decode(device, decode_case(contexts, slots=slots, window=window, block_size=block_size, group=4))


@settings(max_examples=8)
@drawn(
    chunks=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 30)), min_size=1, max_size=3).filter(
        lambda chunks: any(queries for _, queries in chunks)
    ),
    window=st.sampled_from([0, 1, 31, 32]),
    block_size=st.sampled_from([16, 24, 128]),
)
def test_prefill_of_any_batch(device, chunks, window, block_size):
    check_prefill(device, AttentionCase(tuple(chunks), kv_heads=1, window=window, block_size=block_size))


@pytest.mark.parametrize("is_fp8", [False, True])
@pytest.mark.parametrize("window", [0, 20])
def test_the_references(is_fp8, window):
    """What runs on a CPU; its caches hold zeros where nothing is written."""
    decode = decode_case(RAGGED, is_fp8=is_fp8, window=window, scale=0.3)
    prefill = AttentionCase(((0, 9), (50, 1), (0, 0), (31, 23)), is_fp8=is_fp8, window=window, scale=0.3)
    given = decode_inputs(decode).with_zeros()
    got = paged_decode(given.q, given.k_cache, given.v_cache, given.tables, given.ends, decode.options)
    assert_near(got[given.ends > 0], written_out(decode, given), torch.float32)
    assert not got[given.ends == 0].any()
    given = inputs(prefill).with_zeros()
    got = paged_prefill(given.q, given.k_cache, given.v_cache, given.chunks, prefill.options)
    assert_near(got, written_out(prefill, given), torch.float32)


def test_how_a_decode_is_split_changes_nothing(device):
    """More chunks than tiles, one for each, one for all: only the order of sums moves."""
    case = decode_case((300, 0, 17, 129))
    given = decode_inputs(case, device)
    whole = decoded(case._replace(slots=1), given)
    for slots in (4, 10, 40):  # chunks of 8, 4 and 1 tiles, of which 4 do not come out even
        torch.testing.assert_close(decoded(case._replace(slots=slots), given), whole, rtol=1e-5, atol=1e-5)


def test_more_chunks_than_are_merged_at_a_time(device):
    check_decode(device, decode_case((300,), kv_heads=1, group=8, head_dim=256, slots=40))


def test_counters_are_ready_for_the_next_launch(device):
    case = decode_case((300, 129), slots=12)
    given = decode_inputs(case, device)
    assert torch.equal(decoded(case, given), decoded(case, given))


@pytest.mark.parametrize("run", [decoded, prefilled])
def test_where_the_blocks_lie_changes_nothing(device, run):
    case = decode_case((70, 33), dtype=BF16)
    given = decode_inputs(case, device)
    order = torch.randperm(len(given.k_cache), generator=torch.Generator().manual_seed(1)).to(device)
    moved = given._replace(
        k_cache=given.k_cache[order], v_cache=given.v_cache[order], tables=order.argsort().int()[given.tables.long()]
    )
    assert torch.equal(run(case, given), run(case, moved))


def test_what_else_is_in_a_batch_changes_nothing(device):
    """One chunk a sequence: then a row's sums are in the same order in any batch."""
    case = decode_case((70, 33, 0, 12), slots=1)
    given = decode_inputs(case, device)
    alone = given._replace(q=given.q[1:2], tables=given.tables[1:2], ends=given.ends[1:2])
    assert torch.equal(decoded(case, given)[1:2], decoded(case, alone))


def test_a_prompt_in_chunks_is_a_prompt(device):
    """The second half of a prompt, and its last token by the decode kernel, as in the pass over all of it."""
    whole, half, last = (AttentionCase((chunk,), group=4) for chunk in ((0, 50), (23, 27), (49, 1)))
    given = inputs(whole, device)
    expected = prefilled(whole, given)
    later = given._replace(q=given.q[23:], starts=given.starts * 27 // 50, contexts=given.contexts + 23)
    torch.testing.assert_close(prefilled(half, later), expected[23:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded(last, given._replace(q=given.q[49:])), expected[49:], rtol=1e-5, atol=1e-5)


def test_tensors_that_the_kernels_do_not_take(device):
    case = decode_case((5,))
    given = decode_inputs(case, device)
    for wrong in (
        {"tables": given.tables.long()},
        {"k_cache": given.k_cache.double(), "v_cache": given.v_cache.double()},
        {"q": given.q.expand(2, -1, -1).transpose(0, 1)[:1]},
        {"k_cache": given.k_cache[:, :, :, :48]},
    ):
        for run in (decoded, prefilled):
            with pytest.raises(AssertionError):
                run(case, given._replace(**wrong))
