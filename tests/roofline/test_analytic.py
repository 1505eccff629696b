from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline.analytic import AnalyticStepTime
from roofline.errors import InputError
from roofline.forward_pass import Execution
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.parallelism import Parallelism
from roofline.step_time import BatchWork, chunk_attn_pairs
from tests.roofline.shapes import (
    DEEPSEEK_V2_LITE,
    DEEPSEEK_V3,
    GEMMA,
    LLAMA_8B,
    LLAMA_70B,
    MIXTRAL,
    QWEN3_30B_A3B,
    SMALL,
)
from tests.roofline.step_time_laws import Limits, check_step_time_laws, passes

H100 = accelerator("H100")
LAPTOP = HardwareSpec.measured_cpu(20e9, {"fp32": 100e9}, 16e9)


def decode(sequences: int, context: int = 128) -> BatchWork:
    return BatchWork(
        num_decode_seqs=sequences, decode_tokens=sequences, decode_kv_tokens=sequences * context, decode_kv_max=context
    )


DECODE_ONE = decode(1)


def prefill(tokens: int, cached: int = 0) -> BatchWork:
    pairs = chunk_attn_pairs(tokens, cached)
    return BatchWork(num_prefill_seqs=1, prefill_tokens=tokens, prefill_kv_tokens=cached, prefill_attn_pairs=pairs)


def analytic(shape=LLAMA_8B, hardware=H100, degree=1, **options) -> AnalyticStepTime:
    split = options.pop("parallelism", Parallelism(degree))
    return AnalyticStepTime(shape, hardware, Efficiency.prior(hardware), parallelism=split, **options)


def terms(model: AnalyticStepTime, work: BatchWork) -> dict:
    return {term.name: term for term in model.breakdown(work).terms}


MODELS = {
    "8b on H100": analytic(),
    "8b fp8 on H100": analytic(weight_dtype="fp8", kv_dtype="fp8"),
    "70b on 8 H100": analytic(LLAMA_70B, degree=8),
    "70b on 16 H100, KV heads held twice": analytic(LLAMA_70B, degree=16),
    "70b in 4 stages of 2": analytic(LLAMA_70B, parallelism=Parallelism(tensor=2, pipeline=4)),
    "8b int4 on L40S": analytic(hardware=accelerator("L40S"), weight_dtype="int4-g128"),
    "8b launched by the host": analytic(execution=Execution(graphs=False)),
    "8b with naive attention, nothing fused": analytic(execution=Execution(attention="naive", fused=False)),
    "8b keeping 1024 tokens": analytic(execution=Execution(kept_tokens=1024)),
    "135m on a CPU": analytic(SMALL, LAPTOP, weight_dtype="fp32", kv_dtype="fp32"),
    "experts": analytic(MIXTRAL, degree=2),
    "expert ranks that route unevenly": analytic(
        QWEN3_30B_A3B, parallelism=Parallelism(data=8, expert=8), execution=Execution(expert_imbalance=1.5)
    ),
    "experts and latent attention": analytic(DEEPSEEK_V2_LITE),
    "experts over two nodes of ranks": analytic(DEEPSEEK_V3, parallelism=Parallelism(tensor=4, data=4, expert=16)),
    "windows": analytic(GEMMA, degree=2),
}


@pytest.mark.parametrize("name", MODELS)
def test_step_time_laws(name):
    check_step_time_laws(MODELS[name], max_examples=40)


@pytest.mark.parametrize("name", MODELS)
def test_parts_sum_to_the_whole(name):
    model = MODELS[name]

    @settings(max_examples=20, deadline=None)
    @given(passes(Limits()))
    def check(drawn):
        parts = model.breakdown(drawn.work)
        assert parts.seconds == pytest.approx(model.seconds(drawn.work), rel=1e-12)
        assert all(term.seconds >= max(term.math_s, term.memory_s) * (1 - 1e-12) for term in parts.terms)

    check()


@pytest.mark.parametrize("name", ["8b on H100", "windows", "70b in 4 stages of 2"])
def test_fast_forward_changes_no_bit_of_a_timestamp(name):
    work = BatchWork(num_decode_seqs=77, decode_tokens=77, decode_kv_tokens=77_123, decode_kv_max=3_001)
    one_by_one = [MODELS[name].seconds(work.after_decode_steps(step)) for step in range(500)]
    np.testing.assert_array_equal(MODELS[name].decode_run_seconds(work, 500), one_by_one)


@pytest.mark.parametrize("tokens", [1, 63, 1023, 1024, 5000, 16_384, 16_385, 40_000])
def test_looking_up_a_pass_gives_what_working_it_out_gives(tokens):
    """Tables are filled as passes grow, so the order in which passes come must not matter."""
    backwards, alone = analytic(), analytic()
    backwards.seconds(prefill(16_384))
    assert backwards.seconds(prefill(tokens)) == alone.seconds(prefill(tokens))
    assert alone.seconds(prefill(tokens)) == pytest.approx(alone.breakdown(prefill(tokens)).seconds, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(passes(Limits()), st.sampled_from([2, 4, 8]), st.sampled_from([LLAMA_70B, MIXTRAL]))
def test_tensor_parallelism_conserves_flops_and_the_bytes_of_weights_and_cache(drawn, degree, shape):
    whole, part = analytic(shape), analytic(shape, degree=degree)
    conserved = {op.name: op for op in whole.forward.token_operators if op.name not in ("norms", "embedding", "router")}
    assert weight_bytes(part, conserved) * degree == pytest.approx(weight_bytes(whole, conserved), rel=1e-12)
    for name, term in terms(whole, drawn.work).items():
        divided = terms(part, drawn.work)[name]
        if name in conserved or "attention" in name:
            assert divided.flops * degree == pytest.approx(term.flops, rel=1e-12), name
        if "attention" in name:
            assert divided.bytes * degree >= term.bytes * (1 - 1e-12), name


def weight_bytes(model: AnalyticStepTime, names) -> float:
    linear = sum(
        op.calls * getattr(op, "weight_bytes", 0.0) for op in model.forward.token_operators if op.name in names
    )
    experts = [op for op in model.forward.token_operators if op.name == "experts"]
    return linear + sum(
        op.calls * 3 * op.hidden_size * op.intermediate_size * op.held * op.weight_element_bytes for op in experts
    )


def test_kv_heads_are_held_twice_beyond_their_number():
    """Llama 70B has 8 KV heads: on 16 ranks each holds a whole one, so decode reads no less cache than on 8."""
    cache = {n: analytic(LLAMA_70B, degree=n).forward.attention[0].kv_bytes_per_token for n in (4, 8, 16)}
    assert cache[4] == 2 * cache[8]
    assert cache[16] == cache[8]


def test_tensor_parallelism_communicates_and_one_rank_does_not():
    alone, pair = terms(analytic(), prefill(512)), terms(analytic(degree=2), prefill(512))
    assert alone["communication"].seconds == 0
    # two all-reduces a layer of 512 x 4096 bf16 values; a ring of two sends each once
    assert pair["communication"].bytes == 2 * 32 * 512 * 4096 * 2
    assert pair["communication"].seconds > pair["communication"].bytes / 450e9


def test_h100_ridge_is_295_flop_per_byte():
    assert H100.ridge_flop_per_byte("bf16") == pytest.approx(989e12 / 3.35e12)
    assert round(H100.ridge_flop_per_byte("bf16")) == 295


def test_decode_at_batch_one_does_one_flop_per_byte():
    parts = analytic().breakdown(DECODE_ONE)
    assert parts.flops / parts.memory_bytes == pytest.approx(1.0, abs=0.02)
    assert parts.bound == "memory"


def test_matrix_products_turn_compute_bound_near_the_ridge():
    """m rows do about m FLOP per byte of bf16 weights; rows in and out move the crossing, tiles round it up."""
    crossing = H100.ridge_flop_per_byte("bf16") * 0.45 / 0.8
    bounds = {m: terms(analytic(), prefill(m))["gate and up"].bound for m in (1, 128, 192, 512)}
    assert 128 < crossing < 192
    assert bounds == {1: "memory", 128: "memory", 192: "compute", 512: "compute"}


def test_prefill_hides_the_weight_read():
    """Adding a decode to a compute-bound prefill costs a tile of rows and its cache, not another pass over weights."""
    both = prefill(2047)._replace(num_decode_seqs=1, decode_tokens=1, decode_kv_tokens=128, decode_kv_max=128)
    extra = analytic().seconds(both) - analytic().seconds(prefill(2047))
    assert 0 < extra < 0.02 * analytic().seconds(DECODE_ONE)


def test_prefill_pass_of_llama_8b_has_the_textbook_flops():
    """2 FLOPs a weight and token; 4 x heads x head_dim FLOPs a layer and query-key pair; logits for one row."""
    found = terms(analytic(), prefill(1000, cached=500))
    matrices = sum(found[name].flops for name in ("qkv", "attention output", "gate and up", "down"))
    assert matrices == 2 * 1000 * (8_030_261_248 - 2 * 128_256 * 4096 - 65 * 4096)
    assert found["prefill attention"].flops == 4 * 32 * 4096 * (1000 * 500 + 1000 * 1001 / 2)
    assert found["logits"].flops == 2 * 128_256 * 4096


@pytest.mark.parametrize("shape", [LLAMA_8B, MIXTRAL, QWEN3_30B_A3B, GEMMA], ids=lambda shape: shape.name)
def test_a_long_prefill_does_two_flops_a_token_and_active_weight(shape):
    found = terms(analytic(shape), prefill(4096))
    flops = sum(term.flops for name, term in found.items() if "attention" not in name or "output" in name)
    expected = 2 * 4096 * shape.active_layer_linear_parameters + 2 * shape.head_parameters
    assert flops == pytest.approx(expected, rel=1e-9)


def test_latent_attention_does_two_flops_a_token_and_weight():
    found = terms(analytic(DEEPSEEK_V2_LITE), prefill(1000))
    names = ("q and kv down", "q up", "kv up", "attention output")
    # The config has no q_lora_rank, so "q up" projects queries directly.
    assert sum(found[name].flops for name in names) == 2 * 1000 * 27 * DEEPSEEK_V2_LITE.attention_projection_parameters


def test_narrower_weights_make_decode_faster():
    seconds = [analytic(weight_dtype=dtype).seconds(DECODE_ONE) for dtype in ("bf16", "fp8", "int4-g128", "int4")]
    assert seconds == sorted(seconds, reverse=True)
    assert len(set(seconds)) == 4


def test_a_chunked_prefill_costs_no_less_than_the_whole():
    model = analytic()
    chunks = sum(model.seconds(prefill(512, cached)) for cached in range(0, 4096, 512))
    assert chunks > model.seconds(prefill(4096))


def test_experts_of_a_small_batch_read_only_those_touched():
    """Qwen3-30B-A3B sends a token to 8 of 128 experts; 64 tokens reach 128 x (1 - (120/128)^64) of them, 98 %."""
    model = analytic(QWEN3_30B_A3B)
    one, many = (terms(model, decode(n))["experts"].bytes for n in (1, 64))
    assert many / one == pytest.approx((1 - (120 / 128) ** 64) * 128 / 8, rel=0.02)
    assert model.seconds(DECODE_ONE) < 0.2 * model.seconds(decode(64))


def test_every_expert_rank_holds_its_share_and_the_busiest_decides():
    whole = analytic(QWEN3_30B_A3B)
    split = analytic(QWEN3_30B_A3B, parallelism=Parallelism(data=8, expert=8))
    work = prefill(4096)
    alone, shared = terms(whole, work)["experts"], terms(split, work)["experts"]
    assert alone.flops < shared.flops < 1.05 * alone.flops  # eight times the tokens, an eighth of the experts, chance
    assert terms(split, work)["communication"].bytes > 0
    hot = replace(split, execution=Execution(expert_imbalance=2.0))
    assert terms(hot, work)["experts"].flops > 1.9 * shared.flops


def test_windows_stop_the_growth_of_their_layers():
    model = analytic(GEMMA)
    inside, past, further = (terms(model, decode(8, context)) for context in (2048, 8192, 16_384))
    assert further["decode attention, window"] == past["decode attention, window"]
    assert further["decode attention, full"].bytes > 1.9 * past["decode attention, full"].bytes
    assert inside["decode attention, window"].bytes == inside["decode attention, full"].bytes


def test_pipeline_stages_divide_a_large_batch_and_wait_for_a_single_sequence():
    """A lone sequence passes one stage after another: no faster than one accelerator, which would read all weights."""
    whole, staged = analytic(LLAMA_70B), analytic(LLAMA_70B, parallelism=Parallelism(pipeline=4))
    assert staged.seconds(decode(1, 1024)) > whole.seconds(decode(1, 1024))
    busy = staged.seconds(prefill(8192)) / whole.seconds(prefill(8192))
    assert 0.25 < busy < 0.35


def test_a_pass_without_graphs_waits_for_the_host():
    eager, graph = analytic(SMALL, execution=Execution(graphs=False)), analytic(SMALL)
    assert eager.seconds(DECODE_ONE) == pytest.approx(eager.forward.kernels * eager.efficiency.host_launch_s)
    assert eager.seconds(DECODE_ONE) > 2 * graph.seconds(DECODE_ONE)
    assert terms(eager, DECODE_ONE)["overhead"].seconds > terms(graph, DECODE_ONE)["overhead"].seconds
    long = prefill(100_000)  # the device is what everybody waits for
    assert eager.seconds(long) == graph.seconds(long)


def test_naive_attention_moves_the_scores_and_fusion_saves_bytes_and_launches():
    naive, unfused = (analytic(execution=Execution(attention="naive")), analytic(execution=Execution(fused=False)))
    scores = (
        terms(naive, prefill(4096))["prefill attention"].bytes
        - terms(analytic(), prefill(4096))["prefill attention"].bytes
    )
    assert scores == 32 * 4 * 32 * 2 * 4096 * 4097 / 2  # layers, passes over the scores, heads, bytes, pairs
    assert unfused.forward.kernels > analytic().forward.kernels
    assert unfused.breakdown(prefill(4096)).memory_bytes > analytic().breakdown(prefill(4096)).memory_bytes
    assert unfused.breakdown(prefill(4096)).flops == analytic().breakdown(prefill(4096)).flops


def test_shares_of_the_peaks_are_below_one_and_reach_the_priors():
    model = analytic()
    long, small = model.breakdown(prefill(8192)), model.breakdown(decode(1))
    assert 0.40 < model.mfu(long) < 0.45
    assert 0.65 < model.mbu(small) < 0.8


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(InputError, match="parallelism of 3 does not divide"):
        analytic(degree=3)
    with pytest.raises(InputError, match="has no link"):
        analytic(hardware=LAPTOP, weight_dtype="fp32", degree=2)
    with pytest.raises(InputError, match="no rate for fp32"):
        analytic(hardware=accelerator("MI300X"), weight_dtype="fp32")
