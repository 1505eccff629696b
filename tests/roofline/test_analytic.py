import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline.analytic import AnalyticStepTime
from roofline.errors import InputError
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.model_shape import ModelShape
from roofline.step_time import BatchWork, chunk_attn_pairs
from tests.roofline.step_time_laws import Limits, Pass, check_step_time_laws, passes

LLAMA_8B = ModelShape.from_catalogue("llama-3.1-8b")
LLAMA_70B = ModelShape.from_catalogue("llama-3.1-70b")
H100 = accelerator("H100")
LAPTOP = HardwareSpec.measured_cpu(20e9, {"fp32": 100e9}, 16e9)
DECODE_ONE = BatchWork(num_decode_seqs=1, decode_tokens=1, decode_kv_tokens=128, decode_kv_max=128)


def prefill(tokens: int, cached: int = 0) -> BatchWork:
    pairs = chunk_attn_pairs(tokens, cached)
    return BatchWork(num_prefill_seqs=1, prefill_tokens=tokens, prefill_kv_tokens=cached, prefill_attn_pairs=pairs)


def analytic(shape=LLAMA_8B, hardware=H100, **options) -> AnalyticStepTime:
    return AnalyticStepTime(shape, hardware, Efficiency.prior(hardware), **options)


MODELS = {
    "8b on H100": analytic(),
    "8b fp8 on H100": analytic(weight_dtype="fp8", kv_dtype="fp8"),
    "70b on 8 H100": analytic(LLAMA_70B, tensor_parallel=8),
    "70b on 16 H100, KV heads held twice": analytic(LLAMA_70B, tensor_parallel=16),
    "8b int4 on L40S": analytic(hardware=accelerator("L40S"), weight_dtype="int4"),
    "135m on a CPU": analytic(ModelShape.from_catalogue("smollm2-135m"), LAPTOP, weight_dtype="fp32", kv_dtype="fp32"),
}


@pytest.mark.parametrize("name", MODELS)
def test_step_time_laws(name):
    check_step_time_laws(MODELS[name])


@pytest.mark.parametrize("name", MODELS)
def test_parts_sum_to_the_whole(name):
    model = MODELS[name]

    @settings(max_examples=50, deadline=None)
    @given(passes(Limits()))
    def check(drawn: Pass):
        parts = model.breakdown(drawn.work)
        assert parts.seconds == pytest.approx(model.seconds(drawn.work), rel=1e-12)
        assert all(term.seconds >= max(term.math_s, term.memory_s) for term in parts.terms)

    check()


def test_fast_forward_changes_no_bit_of_a_timestamp():
    work = BatchWork(num_decode_seqs=77, decode_tokens=77, decode_kv_tokens=77_123, decode_kv_max=3_001)
    one_by_one = [MODELS["8b on H100"].seconds(work.after_decode_steps(step)) for step in range(500)]
    np.testing.assert_array_equal(MODELS["8b on H100"].decode_run_seconds(work, 500), one_by_one)


@settings(max_examples=50, deadline=None)
@given(passes(Limits()), st.sampled_from([2, 4, 8]))
def test_tensor_parallelism_conserves_flops_and_bytes(drawn, degree):
    whole = analytic(LLAMA_70B).breakdown(drawn.work)
    part = analytic(LLAMA_70B, tensor_parallel=degree).breakdown(drawn.work)
    assert part.flops * degree == pytest.approx(whole.flops, rel=1e-12)
    assert part.memory_bytes * degree == pytest.approx(whole.memory_bytes, rel=1e-12)


def test_kv_heads_are_held_twice_beyond_their_number():
    """Llama 70B has 8 KV heads: on 16 ranks each holds a whole one, so decode reads no less than on 8."""
    decode = {
        degree: analytic(LLAMA_70B, tensor_parallel=degree).breakdown(DECODE_ONE).terms[2].bytes
        for degree in (4, 8, 16)
    }
    assert decode[4] == 2 * decode[8]
    assert decode[16] == decode[8]


def test_tensor_parallelism_communicates_and_one_rank_does_not():
    alone = {term.name: term for term in analytic().breakdown(prefill(512)).terms}
    pair = {term.name: term for term in analytic(tensor_parallel=2).breakdown(prefill(512)).terms}
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


def test_linear_part_turns_compute_bound_at_the_ridge():
    """Batch of B tokens does B FLOP per byte in bf16, so the roofs cross at the ridge of what is reachable."""
    model = analytic()
    crossing = H100.ridge_flop_per_byte("bf16") * model.efficiency.compute / model.efficiency.memory
    bounds = {
        tokens: model.breakdown(prefill(tokens)).terms[0].bound for tokens in (1, int(crossing), int(crossing) + 1)
    }
    assert bounds == {1: "memory", int(crossing): "memory", int(crossing) + 1: "compute"}


def test_prefill_hides_the_weight_read():
    """Adding decodes to a compute-bound prefill costs their compute and their cache, not another pass over weights."""
    model = analytic()
    both = prefill(2048)._replace(num_decode_seqs=1, decode_tokens=1, decode_kv_tokens=128, decode_kv_max=128)
    extra = model.seconds(both) - model.seconds(prefill(2048))
    assert extra < 0.01 * model.seconds(DECODE_ONE)


def test_prefill_pass_of_llama_8b_has_the_textbook_flops():
    """2 FLOPs a weight and token; 4 x heads x head_dim FLOPs a layer and query-key pair; logits for one row."""
    terms = {term.name: term for term in analytic().breakdown(prefill(1000, cached=500)).terms}
    assert terms["linear"].flops == 2 * 1000 * (8_030_261_248 - 2 * 128_256 * 4096 - 65 * 4096)
    assert terms["prefill attention"].flops == 4 * 32 * 4096 * (1000 * 500 + 1000 * 1001 / 2)
    assert terms["logits"].flops == 2 * 128_256 * 4096


def test_narrower_weights_make_decode_faster():
    seconds = [analytic(weight_dtype=dtype).seconds(DECODE_ONE) for dtype in ("bf16", "fp8", "int4")]
    assert seconds == sorted(seconds, reverse=True)
    assert len(set(seconds)) == 3


def test_a_chunked_prefill_costs_no_less_than_the_whole():
    model = analytic()
    chunks = sum(model.seconds(prefill(512, cached)) for cached in range(0, 4096, 512))
    assert chunks > model.seconds(prefill(4096))


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(InputError, match="parallelism of 3 does not divide"):
        analytic(tensor_parallel=3)
    with pytest.raises(InputError, match="has no link"):
        analytic(hardware=LAPTOP, weight_dtype="fp32", tensor_parallel=2)
    with pytest.raises(InputError, match="no rate for fp32"):
        analytic(hardware=accelerator("MI300X"), weight_dtype="fp32")
