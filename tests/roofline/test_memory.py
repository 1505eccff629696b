import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from roofline.errors import CapacityError, InputError
from roofline.fitting import fitting_plan, kv_blocks, remedies
from roofline.hardware import Efficiency, accelerator
from roofline.memory import MemoryLayout, checkpoint_bytes, memory_plan
from roofline.model_shape import ModelShape, catalogue_names
from roofline.parallelism import Parallelism, RankShare, degrees

H100 = accelerator("H100")
PRIOR = Efficiency.prior(H100)
LLAMA_8B, LLAMA_70B = ModelShape.from_catalogue("llama-3.1-8b"), ModelShape.from_catalogue("llama-3.1-70b")
MEASURED = Path(__file__).parents[3] / "shared/data/measured/bsc_h100-64gb_vllm0.8.5_decode/runs.csv"


def layout(degree: int = 1, **changes) -> MemoryLayout:
    return MemoryLayout(parallelism=Parallelism(degree), **changes)


@settings(deadline=None)
@given(st.sampled_from(catalogue_names()), st.sampled_from([1, 2, 4, 8]), st.integers(1, 128), st.integers(1, 40_000))
def test_what_is_promised_fits(name, degree, block_size, tokens):
    shape = ModelShape.from_catalogue(name)
    assume(degree in degrees(shape))
    plan = memory_plan(shape, H100, PRIOR, layout(degree, block_size=block_size))
    sequences = plan.max_sequences(tokens)
    layer_block = plan.kv_bytes_per_token * block_size / plan.num_layers
    null_block = layer_block * plan.num_layers
    used = sequences * plan.layer_blocks_of(tokens) * layer_block + null_block
    assert plan.weight_bytes + plan.other_bytes + used <= plan.memory_bytes or sequences == 0
    one_more = used + plan.layer_blocks_of(tokens) * layer_block + null_block  # what whole blocks leave over is less
    assert plan.weight_bytes + plan.other_bytes + one_more > plan.memory_bytes
    least = RankShare(shape, Parallelism(degree)).kv_bytes(tokens, "bf16")
    assert plan.layer_blocks_of(tokens) * layer_block >= 0.999999 * least
    if shape.sliding_window is None:
        assert sequences * tokens <= plan.kv_tokens


@pytest.mark.parametrize("name", catalogue_names())
@pytest.mark.parametrize("weights", ["fp32", "bf16", "fp8", "int4-g128", "mxfp4"])
def test_parts_sum_to_the_memory_and_to_the_weights(name, weights):
    shape = ModelShape.from_catalogue(name)
    plan = memory_plan(shape, H100, PRIOR, layout(weight_dtype=weights, memory_fraction=0.9))
    whole = plan.weight_bytes + plan.other_bytes + plan.unused_bytes + plan.kv_bytes
    assert whole == pytest.approx(H100.memory_bytes)
    if plan.kv_bytes > 0:
        assert sum(plan.stack().values()) == pytest.approx(H100.memory_bytes)
    if weights in ("fp32", "bf16"):
        assert plan.weight_bytes == shape.weight_bytes(weights)
    assert plan.weight_bytes >= shape.weight_bytes(weights)


def test_narrow_checkpoints_weigh_what_is_published():
    """Sizes of the files on the Hugging Face hub, in which embedding and head stay 16 bits wide."""
    gpt = ModelShape.from_catalogue("gpt-oss-20b")
    assert checkpoint_bytes(gpt, "mxfp4", "experts") == pytest.approx(13.76e9, rel=0.005)
    assert checkpoint_bytes(LLAMA_70B, "int4-g128") == pytest.approx(39.8e9, rel=0.01)  # AWQ and GPTQ, groups of 128
    assert checkpoint_bytes(LLAMA_70B, "fp8") == pytest.approx(72.7e9, rel=0.005)
    assert checkpoint_bytes(LLAMA_8B, "int4-g128") == pytest.approx(5.74e9, rel=0.01)


def test_70b_in_four_bits_on_one_h100_holds_about_30_sequences_of_4096_tokens():
    """35 GB of weights leave 40 GB or so; 327,680 B a token x 4,096 tokens is 1.34 GB a sequence, not 160 MB."""
    assert LLAMA_70B.weight_bytes("int4") == pytest.approx(35e9, rel=0.01)
    sequence = LLAMA_70B.kv_bytes(4096)
    assert sequence == pytest.approx(1.34e9, rel=0.002)
    assert 40e9 // sequence == 29
    plan = fitting_plan(LLAMA_70B, H100, PRIOR, layout(weight_dtype="int4"), 4096)
    assert 27 <= plan.max_sequences(4096) <= 30  # embedding and head stay in 16 bits


def test_seven_billion_parameters_in_four_bits_are_about_3_5_gb():
    assert ModelShape.from_catalogue("mistral-7b").weight_bytes("int4") == pytest.approx(3.5e9, rel=0.05)


def test_tensor_parallelism_divides_weights_and_cache():
    whole, part = (memory_plan(LLAMA_70B, H100, PRIOR, layout(degree)) for degree in (1, 8))
    assert part.weight_bytes == pytest.approx(whole.weight_bytes / 8, rel=1e-3)  # norms are held by every rank
    assert part.kv_bytes_per_token == whole.kv_bytes_per_token / 8
    assert whole.kv_blocks == 0
    assert part.kv_blocks > 0
    assert "communication" in part.others
    assert "communication" not in whole.others


def test_windows_let_more_sequences_run_but_not_short_ones():
    gemma = ModelShape.from_catalogue("gemma-3-27b")
    full = replace(gemma, sliding_window=None, sliding_layers=0)
    plans = [memory_plan(shape, H100, PRIOR) for shape in (gemma, full)]
    assert plans[0].max_sequences(500) == plans[1].max_sequences(500)
    windowed, whole = (plan.max_sequences(32_768) for plan in plans)
    assert windowed > 4 * whole  # 10 of 62 layers keep the whole context, 52 keep 1,024 tokens


def test_latent_attention_is_cached_by_every_rank():
    deepseek, h200 = ModelShape.from_catalogue("deepseek-v3"), accelerator("H200")
    plan = memory_plan(deepseek, h200, PRIOR, layout(8, weight_dtype="fp8"))
    assert plan.kv_bytes_per_token == deepseek.kv_bytes_per_token()
    assert set(plan.weights) == {"routed experts", "attention and MLPs", "embedding and head", "norms, biases, routers"}
    assert plan.weights["routed experts"] > 0.9 * plan.weight_bytes


def test_experts_shared_by_more_ranks_leave_more_for_the_cache():
    qwen = ModelShape.from_catalogue("qwen3-235b-a22b")
    plans = [
        memory_plan(qwen, H100, PRIOR, MemoryLayout(parallelism=Parallelism(tensor=4, data=data, expert=4 * data)))
        for data in (1, 2, 4, 8)
    ]
    assert [plan.kv_bytes for plan in plans] == sorted(plan.kv_bytes for plan in plans)


@pytest.mark.skipif(not MEASURED.exists(), reason="the measurements of others are not here")
@pytest.mark.parametrize(
    ("model", "name"), [("llama-3.1-8b-instruct", "llama-3.1-8b"), ("qwen-2.5-7b-instruct", "qwen2.5-7b")]
)
def test_sampling_600_sequences_takes_the_memory_that_vllm_measured(model, name):
    """Cache that vLLM 0.8.5 found room for on one accelerator: with 600 sequences it has less than with 100."""
    with MEASURED.open() as file:
        found = {
            int(row["max_num_seqs"]): float(row["kv_tokens"])
            for row in csv.DictReader(file)
            if row["model"] == model and row["kv_tokens"]
        }
    shape = ModelShape.from_catalogue(name)
    measured = (found[100] - found[600]) * shape.kv_bytes_per_token()
    few, many = (memory_plan(shape, H100, PRIOR, layout(max_sequences=number)) for number in (100, 600))
    assert many.other_bytes - few.other_bytes == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("field", ["max_batched_tokens", "max_sequences"])
def test_a_larger_batch_takes_more(field):
    sizes = [memory_plan(LLAMA_8B, H100, PRIOR, layout(**{field: 64 * 4**n})).other_bytes for n in range(5)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]


def test_what_does_not_fit_names_remedies_that_do():
    with pytest.raises(CapacityError, match=r"141\.1 GB of weights.*with tensor parallelism 2 or with fp8 weights"):
        kv_blocks(LLAMA_70B, H100, PRIOR)
    assert kv_blocks(LLAMA_70B, H100, PRIOR, layout(2)) > 1
    assert kv_blocks(LLAMA_70B, H100, PRIOR, layout(weight_dtype="fp8")) > 1


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(catalogue_names()),
    st.sampled_from(["L4", "L40S", "A100", "H100", "B300"]),
    st.integers(1, 200_000),
    st.sampled_from([0.5, 0.9, 1.0]),
)
def test_every_remedy_makes_it_fit(name, gpu, tokens, fraction):
    shape, hardware = ModelShape.from_catalogue(name), accelerator(gpu)
    here = layout(memory_fraction=fraction)
    if memory_plan(shape, hardware, PRIOR, here).max_sequences(tokens):
        return
    for remedy in remedies(shape, hardware, PRIOR, here, tokens):
        plan = memory_plan(shape, remedy.hardware, PRIOR, remedy.layout)
        length = plan.longest_sequence(tokens)
        assert length >= (1 if remedy.change == "length" else tokens), remedy
        assert remedy.change != "length" or not plan.max_sequences(length + 1)


def test_a_sequence_too_long_for_what_is_left_is_refused_with_the_longest_that_fits():
    with pytest.raises(CapacityError, match=r"one sequence of 500,000 tokens.*sequences of at most [0-9,]+ tokens"):
        fitting_plan(LLAMA_8B, accelerator("L4"), PRIOR, None, 500_000)


def test_both_changes_at_once_are_offered_where_no_single_one_helps():
    big, small = ModelShape.from_catalogue("llama-3.1-405b"), accelerator("L40S")
    alone = replace(small, link_bytes_per_s=0.0)
    with pytest.raises(CapacityError, match="nothing makes it fit"):
        fitting_plan(big, alone, PRIOR)
    with pytest.raises(CapacityError, match="it fits with "):
        fitting_plan(big, small, PRIOR, None, 4096)


def test_what_an_engine_leaves_alone_is_not_cache():
    nine_tenths, whole = (memory_plan(LLAMA_8B, H100, PRIOR, layout(memory_fraction=one)) for one in (0.9, 1.0))
    assert whole.kv_bytes - nine_tenths.kv_bytes == pytest.approx(8e9)
    assert "left to others" in nine_tenths.stack()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"block_size": 0}, "block_size = 0"), ({"memory_fraction": 1.5}, "1.5"), ({"max_sequences": 0}, "max_sequences")],
)
def test_layouts_without_meaning_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        layout(**change)


def test_a_degree_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="parallelism of 7"):
        memory_plan(LLAMA_70B, H100, PRIOR, layout(7))
