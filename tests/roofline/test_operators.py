import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline.forward_pass import Execution, forward_pass
from roofline.model_parts import MLA
from roofline.operators import Experts, gemm, mla_flops_per_pair
from roofline.parallelism import Parallelism
from roofline.step_time import BatchWork, chunk_attn_pairs
from tests.roofline.shapes import DEEPSEEK_V2_LITE, GEMMA, LLAMA_8B, MIXTRAL

ROUTED = Experts("experts", 1, 4096, 14_336, total=8, held=8, chosen=2, weight_element_bytes=2, activation_bytes=2)


def test_a_product_of_rows_with_a_matrix():
    """Two rows with a 3 x 5 bf16 matrix: 2 x 2 x 3 x 5 FLOPs; 30 weight bytes, 12 bytes in, 20 out."""
    assert gemm("product", 1, 3, 5, (2.0, 2.0)).work(2) == (60, 30 + 12 + 20)
    assert gemm("product", 1, 3, 5, (0.5, 2.0)).work(2) == (60, 7.5 + 12 + 20)


def test_numbers_and_arrays_agree():
    rows = np.array([1.0, 7.0, 4096.0])
    for operator in (gemm("product", 1, 64, 32, (2.0, 2.0)), ROUTED):
        flops, moved = operator.work(rows)
        assert [operator.work(float(row)) for row in rows] == [
            pytest.approx(pair) for pair in zip(flops, moved, strict=True)
        ]


@given(st.integers(1, 300), st.integers(1, 16))
def test_touched_experts_are_those_of_a_simulated_router(tokens, chosen):
    """Bounds that hold for any router: at least what one token chooses, at most all, and what all could choose."""
    experts = Experts("experts", 1, 8, 8, 16, 16, chosen, 2.0, 2.0)
    touched = experts.touched(tokens)
    assert chosen * (1 - 1e-12) <= touched <= min(16, tokens * chosen) * (1 + 1e-12)


def test_touched_experts_agree_with_drawing():
    generator = np.random.default_rng(7)
    draws = [
        len(np.unique(np.concatenate([generator.choice(64, 6, replace=False) for _ in range(20)]))) for _ in range(400)
    ]
    experts = Experts("experts", 1, 8, 8, 64, 64, 6, 2.0, 2.0)
    assert experts.touched(20) == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 20)


def test_the_busiest_of_several_ranks_agrees_with_drawing():
    """Mean 64 pairs on each of 8 ranks; the bound lies above the largest share drawn, by less than 10 %."""
    generator = np.random.default_rng(7)
    largest = [
        max(np.bincount(np.concatenate([generator.choice(64, 4, replace=False) for _ in range(128)]) // 8, minlength=8))
        for _ in range(300)
    ]
    experts = Experts("experts", 1, 8, 8, 64, 8, 4, 2.0, 2.0)
    assert np.mean(largest) < experts.busiest_pairs(128) < 1.1 * np.mean(largest)
    assert experts.busiest_pairs(1) <= 4


def test_one_rank_has_exactly_the_pairs_there_are():
    assert ROUTED.busiest_pairs(100) == 200
    assert ROUTED.work(100)[0] == 2 * 3 * 4096 * 14_336 * 200


def test_latent_attention_in_both_forms():
    """DeepSeek-V2: 512 latent and 64 rotary elements decode, 192 and 128 elements of expanded heads prefill."""
    assert mla_flops_per_pair(MLA(512, 128, 64, 128), 16) == (2 * 16 * (512 + 64 + 512), 2 * 16 * (192 + 128))
    (layer,) = forward_pass(DEEPSEEK_V2_LITE).attention
    assert layer.kv_bytes_per_token == 576 * 2
    cached = BatchWork(1, 10, 100, chunk_attn_pairs(10, 100))
    expanded = 2 * 512 * 16 * (128 + 128) * 100
    assert layer.prefill(cached)[0] == pytest.approx(chunk_attn_pairs(10, 100) * 2 * 16 * 320 + expanded)


def test_a_window_bounds_pairs_and_cache():
    full, windowed = forward_pass(GEMMA).attention
    assert (full.calls, windowed.calls, windowed.window) == (21, 21, 4096)
    long = BatchWork(1, 100, 50_000, chunk_attn_pairs(100, 50_000))
    assert windowed.prefill(long)[0] == 100 * 4096 * windowed.prefill_flops_per_pair
    short = BatchWork(1, 100, 1000, chunk_attn_pairs(100, 1000))
    assert windowed.prefill(short) == full.prefill(short)


def test_padding_is_of_chunks_and_of_decodes_beside_them():
    (layer,) = forward_pass(LLAMA_8B).attention
    alone = BatchWork(0, 0, 0, 0, 8, 8, 8000, 1000)
    assert layer.prefill_padding(alone, 128) == 0
    mixed = alone._replace(num_prefill_seqs=1, prefill_tokens=16, prefill_kv_tokens=4096)
    assert layer.prefill_padding(mixed, 128) == 63.5 * (4096 + 16) * layer.prefill_flops_per_pair
    assert layer.decode_padding(mixed, 8000, 128) == (63.5 - 4) * 8000 * layer.decode_flops_per_pair
    assert layer.prefill_padding(mixed, 1) == layer.decode_padding(mixed, 8000, 1) == 0


def test_kernels_of_a_dense_layer():
    """Two norms, qkv, rotary, cache write, attention, output, gate and up, activation, down; then five outside."""
    dense = forward_pass(LLAMA_8B)
    assert dense.kernels == 32 * 10 + 4
    assert forward_pass(LLAMA_8B, execution=Execution(fused=False)).kernels > 1.4 * dense.kernels


def test_collectives_of_a_pass():
    assert forward_pass(LLAMA_8B).all_reduces == 0
    assert forward_pass(LLAMA_8B, parallelism=Parallelism(2)).all_reduces == 64
    shared = forward_pass(MIXTRAL, parallelism=Parallelism(tensor=2, data=4, expert=8))
    assert (shared.all_reduces, shared.all_to_alls) == (32, 64)  # attention's; and tokens to experts and back
    assert (
        forward_pass(MIXTRAL, parallelism=Parallelism(tensor=8, expert=8)).all_to_alls == 0
    )  # all ranks see all tokens
