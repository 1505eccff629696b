import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline.catalogue_data import shipped_rows
from roofline.errors import InputError, ModelError
from roofline.formats import BYTES_PER_ELEMENT, bytes_per_element, format_name
from roofline.model_config import hf_dtype
from roofline.model_parts import RopeScaling
from roofline.model_shape import ModelShape, catalogue_names, hugging_face_id

LLAMA_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}
QWEN3_CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SMOLLM2_GGUF = {
    "general.architecture": "llama",
    "general.name": "SmolLM2",
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.rope.freq_base": 100000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": ["token"] * 49152,
}


@pytest.mark.parametrize("row", shipped_rows("models"), ids=lambda row: row["name"])
def test_parameter_count_is_the_published_one(row):
    assert ModelShape.from_catalogue(row["name"]).num_parameters == pytest.approx(
        row["published_parameters"], rel=0.005
    )


@pytest.mark.parametrize(
    ("name", "published"),
    [("llama-3.1-8b", 8_030_261_248), ("smollm2-135m", 134_515_008), ("llama-3.1-70b", 70_553_706_496)],
)
def test_parameter_counts_of_the_model_cards(name, published):
    assert ModelShape.from_catalogue(name).num_parameters == published


# Bytes a token of a bf16 cache, by hand: layers x 2 x KV heads x head_dim x 2 bytes, or layers x 576 x 2 for MLA.
KV_BYTES_PER_TOKEN = {
    "smollm2-135m": 23_040, "smollm2-360m": 40 << 10, "smollm2-1.7b": 192 << 10,
    "llama-3.2-1b": 32 << 10, "llama-3.2-3b": 112 << 10, "llama-3.1-8b": 131_072, "llama-3.1-70b": 327_680,
    "llama-3.3-70b": 327_680, "llama-3.1-405b": 504 << 10,
    "mistral-7b": 128 << 10, "mistral-nemo-12b": 160 << 10, "mixtral-8x7b": 128 << 10, "mixtral-8x22b": 224 << 10,
    "qwen2.5-0.5b": 12 << 10, "qwen2.5-1.5b": 28 << 10, "qwen2.5-3b": 36 << 10, "qwen2.5-7b": 56 << 10,
    "qwen2.5-14b": 192 << 10, "qwen2.5-32b": 256 << 10, "qwen2.5-72b": 320 << 10, "qwen2-57b-a14b": 56 << 10,
    "qwen3-0.6b": 112 << 10, "qwen3-1.7b": 112 << 10, "qwen3-4b": 144 << 10, "qwen3-8b": 144 << 10,
    "qwen3-14b": 160 << 10, "qwen3-32b": 256 << 10, "qwen3-30b-a3b": 96 << 10, "qwen3-235b-a22b": 188 << 10,
    "gemma-2-2b": 104 << 10, "gemma-2-9b": 336 << 10, "gemma-2-27b": 368 << 10,
    "gemma-3-1b": 26 << 10, "gemma-3-4b": 136 << 10, "gemma-3-12b": 384 << 10, "gemma-3-27b": 496 << 10,
    "phi-3-mini-4k": 384 << 10, "phi-3-medium-4k": 200 << 10, "phi-4": 200 << 10,
    "deepseek-v2-lite": 31_104, "deepseek-v3": 70_272, "gpt-oss-20b": 48 << 10, "gpt-oss-120b": 72 << 10,
}  # fmt: skip


@pytest.mark.parametrize("name", catalogue_names())
def test_kv_bytes_per_token(name):
    shape = ModelShape.from_catalogue(name)
    assert shape.kv_bytes_per_token("bf16") == KV_BYTES_PER_TOKEN[name]
    assert shape.kv_bytes_per_token("fp8") * 2 == KV_BYTES_PER_TOKEN[name]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mixtral-8x7b", 12.9e9),
        ("mixtral-8x22b", 39e9),
        ("qwen2-57b-a14b", 14.2e9),
        ("qwen3-30b-a3b", 3.3e9),
        ("qwen3-235b-a22b", 22e9),
        ("deepseek-v2-lite", 2.7e9),
        ("deepseek-v3", 37e9),
        ("llama-3.1-8b", 8.03e9),
    ],
)
def test_active_parameters_are_those_of_the_model_cards(name, published):
    assert ModelShape.from_catalogue(name).active_parameters == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(("name", "published"), [("gpt-oss-20b", 3.61e9), ("gpt-oss-120b", 5.13e9)])
def test_active_parameters_of_gpt_oss_leave_out_the_embedding(name, published):
    shape = ModelShape.from_catalogue(name)
    assert shape.active_parameters - shape.vocab_size * shape.hidden_size == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", catalogue_names())
def test_windows_hold_back_the_growth_of_the_cache(name):
    shape = ModelShape.from_catalogue(name)
    sizes = [shape.kv_bytes(context) for context in range(0, shape.max_position + 1, 500)]
    assert sizes == sorted(sizes)
    window = shape.sliding_window or shape.max_position
    assert shape.kv_bytes(window) == window * shape.kv_bytes_per_token()
    beyond = shape.kv_bytes(window + 1000) - shape.kv_bytes(window)
    full = shape.num_layers - shape.sliding_layers
    assert beyond * shape.num_layers == 1000 * shape.kv_bytes_per_token() * full


@pytest.mark.parametrize("name", catalogue_names())
def test_a_shape_survives_json(name):
    shape = ModelShape.from_catalogue(name)
    assert ModelShape.from_dict(json.loads(json.dumps(asdict(shape)))) == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sliding_window": 128}, "0 layers with a window of 128"),
        ({"sliding_layers": 3}, "3 layers with a window of None"),
        ({"sliding_window": 128, "sliding_layers": 33}, "33 sliding layers of 32"),
        ({"moe": {"num_experts": 8, "experts_per_token": 9, "intermediate_size": 1}}, "sends a token to 9"),
        (
            {"moe": {"num_experts": 8, "experts_per_token": 2, "intermediate_size": 1, "num_dense_layers": 32}},
            "32 dense layers of 32",
        ),
        (
            {"mla": {"kv_lora_rank": 0, "qk_nope_head_dim": 1, "qk_rope_head_dim": 1, "v_head_dim": 1}},
            "kv_lora_rank = 0",
        ),
        ({"mla": {"kv_lora_rank": 9, "qk_nope_head_dim": 1, "qk_rope_head_dim": 1, "v_head_dim": 1}}, "attention 2"),
        ({"quantization": {"weight_format": "mxfp4", "scope": "experts"}}, "no experts"),
        ({"quantization": {"weight_format": "fp4", "scope": "some"}}, "scope 'some'"),
        ({"quantization": {"weight_format": "float16"}}, "spelt 'fp16'"),
    ],
)
def test_parts_that_contradict_the_shape_are_refused(change, message):
    plain = asdict(ModelShape.from_catalogue("llama-3.1-8b"))
    with pytest.raises(ModelError, match=message):
        ModelShape.from_dict({**plain, **change})


def test_llama_8b_caches_8192_tokens_in_one_gib():
    assert ModelShape.from_catalogue("llama-3.1-8b").kv_bytes_per_token("bf16") * 8192 == 2**30


def test_llama_70b_caches_128k_tokens_in_about_40_gb():
    assert ModelShape.from_catalogue("llama-3.1-70b").kv_bytes_per_token("bf16") * 128_000 == pytest.approx(
        40e9, rel=0.05
    )


@pytest.mark.parametrize("name", catalogue_names())
def test_parts_of_a_model_sum_to_its_parameters(name):
    shape = ModelShape.from_catalogue(name)
    assert shape.non_embedding_parameters == shape.layer_linear_parameters + shape.vector_parameters
    experts = shape.num_moe_layers * (shape.router_parameters + shape.shared_parameters) + shape.routed_parameters
    attention = shape.num_layers * shape.attention_projection_parameters
    assert shape.layer_linear_parameters == attention + shape.num_dense_layers * shape.mlp_parameters + experts
    assert shape.active_parameters <= shape.num_parameters
    assert (shape.active_parameters == shape.num_parameters) == (shape.moe is None)
    assert shape.num_parameters == shape.non_embedding_parameters + shape.embedding_parameters
    assert shape.weight_bytes("bf16") == 2 * shape.num_parameters


def test_hugging_face_llama_equals_the_catalogue():
    assert ModelShape.from_hf_config(LLAMA_CONFIG, name="llama-3.1-8b") == ModelShape.from_catalogue("llama-3.1-8b")


def test_hugging_face_qwen3_equals_the_catalogue():
    assert ModelShape.from_hf_config(QWEN3_CONFIG, name="qwen3-0.6b") == ModelShape.from_catalogue("qwen3-0.6b")


def test_both_spellings_of_rope_and_dtype_and_a_nested_config_read_alike():
    new = {
        key: value for key, value in LLAMA_CONFIG.items() if key not in ("rope_theta", "rope_scaling", "torch_dtype")
    }
    new |= {"rope_parameters": {**LLAMA_CONFIG["rope_scaling"], "rope_theta": 500000.0}, "dtype": "bfloat16"}
    old_shape = ModelShape.from_hf_config(LLAMA_CONFIG, name="m")
    assert ModelShape.from_hf_config(new, name="m") == old_shape
    assert ModelShape.from_hf_config({"model_type": "vlm", "text_config": new}, name="m") == old_shape
    assert hf_dtype(new) == hf_dtype(LLAMA_CONFIG) == "bfloat16"


def test_model_type_stands_in_for_a_missing_architecture():
    config = {key: value for key, value in QWEN3_CONFIG.items() if key != "architectures"}
    assert ModelShape.from_hf_config(config).qk_norm


def test_qwen2_biases_q_k_v_and_not_the_output():
    config = {**QWEN3_CONFIG, "architectures": ["Qwen2ForCausalLM"]}
    shape = ModelShape.from_hf_config(config)
    assert shape.attention_bias
    assert not shape.attention_output_bias
    assert not shape.qk_norm
    plain = ModelShape.from_hf_config({**config, "architectures": ["LlamaForCausalLM"]})
    assert shape.num_parameters - plain.num_parameters == 28 * (16 + 2 * 8) * 128


def test_llama_attention_bias_is_on_all_four_projections():
    plain = ModelShape.from_hf_config(LLAMA_CONFIG)
    biased = ModelShape.from_hf_config({**LLAMA_CONFIG, "attention_bias": True})
    assert biased.num_parameters - plain.num_parameters == 32 * (4096 + 2 * 1024 + 4096)


def test_unknown_architecture_names_the_fields_seen():
    with pytest.raises(ModelError, match=r"MambaForCausalLM.*ssm_state"):
        ModelShape.from_hf_config({"architectures": ["MambaForCausalLM"], "ssm_state": 16})
    with pytest.raises(ModelError, match="not known"):
        ModelShape.from_hf_config({"architectures": [], "hidden_size": 1})


def test_an_unused_sliding_window_is_no_matter():
    unused = {"sliding_window": 4096, "use_sliding_window": False}
    assert ModelShape.from_hf_config({**QWEN3_CONFIG, **unused}) == ModelShape.from_hf_config(QWEN3_CONFIG)
    mistral = {**LLAMA_CONFIG, "architectures": ["MistralForCausalLM"], "sliding_window": None}
    assert ModelShape.from_hf_config(mistral).num_parameters == 8_030_261_248


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "lacks the field hidden_size"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers = '32'"),
        ({"num_hidden_layers": 0}, "num_layers = 0"),
        ({"num_key_value_heads": 5}, "multiple"),
        ({"hidden_size": 4097}, "no head_dim"),
        ({"vocab_size": 1.5}, "whole number"),
        ({"hidden_act": "gelu"}, "modelled with silu"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "2 layer_types for 32 layers"),
        ({"layer_types": ["linear_attention"] * 32}, "not modelled: linear_attention"),
    ],
)
def test_inconsistent_configs_are_refused(change, message):
    with pytest.raises(ModelError, match=message):
        ModelShape.from_hf_config({**LLAMA_CONFIG, **change})


def test_gguf_tied_model():
    shape = ModelShape.from_gguf(SMOLLM2_GGUF, ["token_embd.weight", "output_norm.weight"], name="smollm2-135m")
    assert shape == ModelShape.from_catalogue("smollm2-135m")


def test_gguf_tensor_names_tell_head_biases_norms_and_rope():
    names = ["output.weight", "blk.0.attn_q.bias", "blk.0.attn_q_norm.weight", "rope_freqs.weight"]
    shape = ModelShape.from_gguf(SMOLLM2_GGUF, names)
    assert (shape.name, shape.tie_embeddings, shape.attention_bias, shape.qk_norm) == ("SmolLM2", False, True, True)
    assert shape.rope_scaling == RopeScaling("tensor", 1.0)


def test_gguf_of_another_architecture_is_refused():
    with pytest.raises(ModelError, match=r"'mamba' is not known.*mamba\.block_count"):
        ModelShape.from_gguf({"general.architecture": "mamba", "mamba.block_count": 1}, [])
    with pytest.raises(ModelError, match="8 experts"):
        ModelShape.from_gguf({**SMOLLM2_GGUF, "llama.expert_count": 8}, [])


def test_catalogue_takes_hugging_face_ids_and_lists_its_names():
    assert ModelShape.from_catalogue("qwen/qwen3-32b") == ModelShape.from_catalogue("Qwen3-32B")
    with pytest.raises(ModelError, match=r"llama-3\.1-70b"):
        ModelShape.from_catalogue("llama-9")


def test_shapes_can_be_keys():
    assert len({ModelShape.from_catalogue(name) for name in catalogue_names() * 2}) == len(catalogue_names())


def test_number_formats():
    assert [bytes_per_element(name) for name in ("fp32", "bf16", "fp16", "fp8", "int8", "int4")] == [4, 2, 2, 1, 1, 0.5]
    assert format_name("torch.bfloat16") == format_name("BF16") == "bf16"
    assert all(format_name(name) == name for name in BYTES_PER_ELEMENT)
    with pytest.raises(InputError, match="fp7"):
        format_name("fp7")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
FIELDS = sorted(
    {*LLAMA_CONFIG, *QWEN3_CONFIG, "rope_parameters", "layer_types", "text_config", "mlp_bias", "quantization_config"}
    | {"num_experts", "num_experts_per_tok", "moe_intermediate_size", "mlp_only_layers", "decoder_sparse_step"}
    | {"kv_lora_rank", "sliding_window_pattern", "moe_layer_freq", "first_k_dense_replace", "model_type"}
)
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
LATENT = {"kv_lora_rank": 64, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
BASES = [
    LLAMA_CONFIG,
    {**LLAMA_CONFIG, **EXPERTS, "architectures": ["Qwen2MoeForCausalLM"]},
    {**LLAMA_CONFIG, **EXPERTS, **LATENT, "architectures": ["DeepseekV3ForCausalLM"]},
    {**LLAMA_CONFIG, "architectures": ["Gemma3ForCausalLM"], "hidden_act": "gelu", "sliding_window": 512},
]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(BASES), st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, min_size=1, max_size=3))
def test_a_config_with_any_value_anywhere_is_a_shape_or_a_model_error(base, change):
    try:
        shape = ModelShape.from_hf_config({**base, **change})
    except ModelError as error:
        assert str(error)
    else:
        assert shape.num_parameters > 0
        assert hash(shape) == hash(shape)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("gemma-3-4b", "google/gemma-3-4b-it"),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("deepseek-v3", "deepseek-ai/DeepSeek-V3"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("./my-model", "./my-model"),
    ],
)
def test_a_benchmark_can_name_the_published_model(name, published):
    assert hugging_face_id(name) == published
