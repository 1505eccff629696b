import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline.errors import CapacityError, InputError
from roofline.hardware import Efficiency, accelerator
from roofline.memory import MemoryLayout, fitting_plan, kv_blocks, memory_plan
from roofline.model_shape import ModelShape, catalogue_names

H100 = accelerator("H100")
PRIOR = Efficiency.prior(H100)
LLAMA_70B = ModelShape.from_catalogue("llama-3.1-70b")


@settings(deadline=None)
@given(st.sampled_from(catalogue_names()), st.sampled_from([1, 2, 4, 8]), st.integers(1, 128), st.integers(1, 40_000))
def test_what_is_promised_fits(name, degree, block_size, tokens):
    shape = ModelShape.from_catalogue(name)
    if shape.num_heads % degree or shape.intermediate_size % degree:
        return
    plan = memory_plan(shape, H100, PRIOR, MemoryLayout("bf16", "bf16", degree, block_size))
    sequences = plan.max_sequences(tokens)
    blocks = -(-tokens // block_size)
    used = sequences * blocks * block_size * plan.kv_bytes_per_token
    assert sequences * tokens <= plan.kv_tokens
    assert plan.weight_bytes + plan.other_bytes + used <= plan.memory_bytes or sequences == 0
    one_more = (1 + (sequences + 1) * blocks) * block_size * plan.kv_bytes_per_token  # and the null block
    assert plan.weight_bytes + plan.other_bytes + one_more > plan.memory_bytes


def test_70b_in_four_bits_on_one_h100_holds_about_30_sequences_of_4096_tokens():
    """35 GB of weights; 327,680 B a token x 4,096 tokens is 1.34 GB a sequence, of about 41 GB left."""
    plan = fitting_plan(LLAMA_70B, H100, PRIOR, MemoryLayout(weight_dtype="int4"), 4096)
    assert plan.weight_bytes == pytest.approx(35e9, rel=0.01)
    assert plan.max_sequences(4096) == 30


def test_seven_billion_parameters_in_four_bits_are_about_3_5_gb():
    assert ModelShape.from_catalogue("mistral-7b").weight_bytes("int4") == pytest.approx(3.5e9, rel=0.05)


def test_tensor_parallelism_divides_weights_and_cache():
    whole, part = (memory_plan(LLAMA_70B, H100, PRIOR, MemoryLayout(tensor_parallel=degree)) for degree in (1, 8))
    assert part.weight_bytes == pytest.approx(whole.weight_bytes / 8, rel=1e-3)  # norms are held by every rank
    assert part.kv_bytes_per_token == whole.kv_bytes_per_token / 8
    assert whole.kv_blocks == 0
    assert part.kv_blocks > 0


def test_what_does_not_fit_names_remedies_that_do():
    with pytest.raises(CapacityError, match=r"141\.1 GB of weights.*with tensor parallelism 2 or with fp8 weights"):
        kv_blocks(LLAMA_70B, H100, PRIOR)
    assert kv_blocks(LLAMA_70B, H100, PRIOR, MemoryLayout(tensor_parallel=2)) > 1
    assert kv_blocks(LLAMA_70B, H100, PRIOR, MemoryLayout(weight_dtype="fp8")) > 1


def test_a_sequence_too_long_for_what_is_left_is_refused():
    with pytest.raises(CapacityError, match="one sequence of 500000 tokens"):
        fitting_plan(ModelShape.from_catalogue("llama-3.1-8b"), accelerator("L4"), PRIOR, None, 500_000)


def test_a_model_that_nothing_makes_fit_is_said_so():
    with pytest.raises(CapacityError, match="no degree or format makes it fit"):
        fitting_plan(LLAMA_70B, accelerator("L4"), PRIOR, None, 2_000_000_000)


def test_a_degree_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="parallelism of 7"):
        memory_plan(LLAMA_70B, H100, PRIOR, MemoryLayout(tensor_parallel=7))
