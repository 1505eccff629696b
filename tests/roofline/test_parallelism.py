import pytest

from roofline.errors import InputError
from roofline.parallelism import Parallelism, RankShare, degrees
from tests.roofline.shapes import DEEPSEEK_V2_LITE, DEEPSEEK_V3, GEMMA, LLAMA_8B, LLAMA_70B, MIXTRAL, QWEN3_30B_A3B

EVERY_KIND = (LLAMA_8B, LLAMA_70B, MIXTRAL, QWEN3_30B_A3B, DEEPSEEK_V2_LITE, DEEPSEEK_V3, GEMMA)


@pytest.mark.parametrize("shape", EVERY_KIND, ids=lambda shape: shape.name)
def test_one_rank_holds_the_whole_model(shape):
    alone = RankShare(shape)
    assert alone.num_parameters == shape.num_parameters
    assert alone.layer_linear_parameters == shape.layer_linear_parameters
    for context in (1, 5000, 100_000):
        assert alone.kv_bytes(context, "bf16") == shape.kv_bytes(context, "bf16")


@pytest.mark.parametrize("shape", [LLAMA_8B, LLAMA_70B, GEMMA], ids=lambda shape: shape.name)
@pytest.mark.parametrize("degree", [2, 4, 8])
def test_tensor_ranks_together_hold_each_matrix_once(shape, degree):
    share = RankShare(shape, Parallelism(degree))
    assert share.layer_linear_parameters * degree == shape.layer_linear_parameters
    assert share.kv_bytes_per_token("bf16") * degree == shape.kv_bytes_per_token("bf16")


def test_expert_ranks_together_hold_each_expert_once():
    share = RankShare(QWEN3_30B_A3B, Parallelism(data=8, expert=8))
    assert share.num_experts * 8 == 128
    experts = 48 * share.num_experts * QWEN3_30B_A3B.expert_parameters
    rest = QWEN3_30B_A3B.layer_linear_parameters - QWEN3_30B_A3B.routed_parameters
    assert share.layer_linear_parameters == rest + experts  # data-parallel ranks hold all the rest each


def test_the_latent_cache_is_held_by_every_rank():
    alone, eight = (RankShare(DEEPSEEK_V3, Parallelism(degree)) for degree in (1, 8))
    assert eight.kv_bytes_per_token("bf16") == alone.kv_bytes_per_token("bf16") == 70_272
    assert eight.attention_parameters > alone.attention_parameters / 8


def test_pipeline_stages_divide_layers_and_cache():
    share = RankShare(LLAMA_70B, Parallelism(tensor=2, pipeline=3))
    assert share.num_layers == 27  # the fullest of 80 in three
    assert share.kv_bytes_per_token("bf16") == 27 * 2 * 4 * 128 * 2


@pytest.mark.parametrize(
    ("shape", "degree", "expert", "tensor"),
    [(MIXTRAL, Parallelism(4), 1, 4), (MIXTRAL, Parallelism(8, expert=4), 4, 2),
     (DEEPSEEK_V3, Parallelism(tensor=4, data=4, expert=16), 16, 1), (MIXTRAL, Parallelism(2, data=3), 1, 2)],
)  # fmt: skip
def test_experts_are_divided_among_ranks_and_each_among_the_rest(shape, degree, expert, tensor):
    share = RankShare(shape, degree)
    assert share.num_experts == shape.moe.num_experts // expert
    assert share.expert_intermediate_size == shape.moe.intermediate_size // tensor


def test_degrees_are_those_that_can_be_built():
    assert degrees(LLAMA_8B) == [1, 2, 4, 8, 16, 32]
    for degree in degrees(QWEN3_30B_A3B):
        RankShare(QWEN3_30B_A3B, Parallelism(degree))


def test_how_people_write_it():
    assert Parallelism().text == ""
    assert Parallelism(tensor=8, pipeline=2).text == "PP2 x TP8"
    assert Parallelism(tensor=8, pipeline=2).accelerators == 16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Parallelism(0), "tensor parallelism of 0 has no meaning"),
        (lambda: Parallelism(2, expert=3), "expert parallelism of 3 does not divide the 2 ranks"),
        (lambda: RankShare(LLAMA_8B, Parallelism(3)), "3 does not divide.*use one of 1, 2, 4, 8, 16, 32"),
        (lambda: RankShare(LLAMA_8B, Parallelism(pipeline=33)), "33 exceeds llama-3.1-8b's 32 layers"),
        (lambda: RankShare(LLAMA_8B, Parallelism(data=2)), "no experts to share.*add replicas"),
        (lambda: RankShare(MIXTRAL, Parallelism(tensor=16, expert=16)), "does not divide mixtral-8x7b's 8 experts"),
    ],
)
def test_degrees_that_do_not_divide_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
