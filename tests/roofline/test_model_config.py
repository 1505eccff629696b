"""Hugging Face configs of every family, counted against the layers that transformers builds from them."""

import json

import pytest

from roofline.errors import ModelError
from roofline.model_parts import MLA, MoE, Quantization, RopeScaling
from roofline.model_shape import ModelShape
from roofline.model_source import load_model_shape

SIZES = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 7,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 211,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT = {
    "kv_lora_rank": 24, "q_lora_rank": 40, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "num_key_value_heads": 6, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
    "n_shared_experts": 2, "first_k_dense_replace": 2, "n_group": 2, "topk_group": 1, "head_dim": 8,
}  # fmt: skip
QWEN_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "mlp_only_layers": [3]}
FAMILIES = {
    "llama": {"attention_bias": True},
    "mistral": {"sliding_window": 64},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "phi3": {"sliding_window": 47, "original_max_position_embeddings": 512},
    "qwen2": {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 4},
    "qwen2_moe": {**QWEN_EXPERTS, "shared_expert_intermediate_size": 80},
    "qwen3": {"tie_word_embeddings": True},
    "qwen3_moe": {**QWEN_EXPERTS, "decoder_sparse_step": 2},
    "gemma2": {"sliding_window": 64},
    "gemma3_text": {"sliding_window": 64},
    "deepseek_v2": {**LATENT, "q_lora_rank": None},
    "deepseek_v3": LATENT,
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32},
}


@pytest.fixture(scope="module")
def built():
    """The configuration and weights that transformers makes of a family's sizes."""
    transformers = pytest.importorskip("transformers", reason="the weights are counted on transformers' own layers")
    torch = pytest.importorskip("torch", reason="transformers builds its layers with torch")

    def build(family: str):
        config = transformers.AutoConfig.for_model(family, **{**SIZES, **FAMILIES[family]})
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        return {"architectures": [type(model).__name__], **config.to_dict()}, model

    return build


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_the_layers_that_transformers_builds(built, family):
    config, model = built(family)
    shape = ModelShape.from_hf_config(json.loads(json.dumps(config)))
    buffers = sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias"))
    assert shape.num_parameters == sum(weight.numel() for weight in model.parameters()) + buffers
    kinds = config.get("layer_types") or []
    assert shape.sliding_layers == kinds.count("sliding_attention") or family in ("mistral", "phi3")


def test_families_without_layer_types_slide_as_their_code_does():
    base = {**SIZES, "rms_norm_eps": 1e-6, "sliding_window": 64}
    gemma = {**base, "hidden_activation": "gelu_pytorch_tanh"}
    window = {
        "mistral": (base, 7),
        "phi3": (base, 7),
        "gemma2": (gemma, 4),
        "gemma3_text": (gemma, 6),
        "qwen3": ({**base, "use_sliding_window": True, "max_window_layers": 5}, 2),
        "qwen2": (base, 0),
        "gpt_oss": ({**base, "num_local_experts": 4, "num_experts_per_tok": 2}, 4),
    }
    for model_type, (config, layers) in window.items():
        shape = ModelShape.from_hf_config({**config, "model_type": model_type})
        assert shape.sliding_layers == layers, model_type
        assert shape.sliding_window == (64 if layers else None)


def test_a_window_as_long_as_the_context_is_none():
    config = {**SIZES, "model_type": "mistral", "rms_norm_eps": 1e-5, "max_position_embeddings": 4096}
    assert ModelShape.from_hf_config(config).sliding_window is None  # the class's own 4,096
    assert ModelShape.from_hf_config({**config, "sliding_window": None}).sliding_layers == 0


def test_multi_modal_gemma_states_little_and_the_family_the_rest():
    text = {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    }  # fmt: skip
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    assert ModelShape.from_hf_config(outer, name="gemma-3-4b") == ModelShape.from_catalogue("gemma-3-4b")


def test_deepseek_v3_is_read_as_published():
    config = {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "attention_bias": False,
        "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432,
        "kv_lora_rank": 512, "max_position_embeddings": 163840, "moe_intermediate_size": 2048, "moe_layer_freq": 1,
        "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280, "rope_theta": 10000,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "topk_method": "noaux_tc",
        "quantization_config": {"fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
        "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 1.0},
    }  # fmt: skip
    assert ModelShape.from_hf_config(config, name="deepseek-v3") == ModelShape.from_catalogue("deepseek-v3")
    dense = ModelShape.from_hf_config({**config, "n_routed_experts": None})
    assert dense.moe is None


def test_gpt_oss_is_read_as_published():
    config = {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": True, "head_dim": 64,
        "hidden_act": "silu", "hidden_size": 2880, "intermediate_size": 2880, "max_position_embeddings": 131072,
        "experts_per_token": 4, "num_local_experts": 32, "num_attention_heads": 64, "num_hidden_layers": 24,
        "num_key_value_heads": 8, "sliding_window": 128, "vocab_size": 201088, "rms_norm_eps": 1e-5,
        "layer_types": ["sliding_attention", "full_attention"] * 12, "rope_theta": 150000,
        "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
        "quantization_config": {
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
            "quant_method": "mxfp4",
        },
    }  # fmt: skip
    assert ModelShape.from_hf_config(config, name="gpt-oss-20b") == ModelShape.from_catalogue("gpt-oss-20b")


def test_phi3_states_its_stretch_as_two_lengths():
    config = {
        **SIZES, "model_type": "phi3", "rms_norm_eps": 1e-5, "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope", "long_factor": [1.0]},
        "partial_rotary_factor": 0.75,
    }  # fmt: skip
    shape = ModelShape.from_hf_config(config)
    assert shape.rope_scaling == RopeScaling("longrope", 32.0, 4096)
    assert shape.rotary_fraction == 0.75


def test_positions_stretched_differently_by_kind_of_layer_count_as_the_full_ones():
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    }
    config = {**SIZES, "model_type": "gemma3_text", "sliding_window": 64, "rope_parameters": rope}
    shape = ModelShape.from_hf_config(config)
    assert (shape.rope_theta, shape.rope_scaling) == (1e6, RopeScaling("linear", 8.0))


QUANTIZED = {
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, Quantization("int4-g128")),
    "gptq in 8 bits": ({"quant_method": "gptq", "bits": 8, "group_size": 32}, Quantization("int8")),
    "gptq a column": ({"quant_method": "gptq", "bits": 4, "group_size": -1}, Quantization("int4")),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, Quantization("fp8")),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, Quantization("nf4")),
    "bitsandbytes twice": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True},
        Quantization("nf4-double"),
    ),
    "compressed fp8 with fp8 cache": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
            "kv_cache_scheme": {"num_bits": 8, "type": "float"},
            "ignore": ["lm_head"],
        },
        Quantization("fp8", kv_format="fp8"),
    ),
    "compressed int4": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
        },
        Quantization("int4-g32"),
    ),
    "compressed nvfp4": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}},
        },
        Quantization("nvfp4"),
    ),
    "a few layers kept": (
        {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.self_attn.q_proj"]},
        Quantization("fp8"),
    ),
}


@pytest.mark.parametrize("case", QUANTIZED)
def test_quantised_checkpoints_say_their_formats(case):
    config, expected = QUANTIZED[case]
    shape = ModelShape.from_hf_config(
        {**SIZES, "model_type": "llama", "rms_norm_eps": 1e-5, "quantization_config": config}
    )
    assert shape.quantization == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "hqq"}, r"'hqq', which is not known.*awq.*has the fields quant_method"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 128}, "3-bit weights in groups of 128"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "0 weight formats"),
        ({"quant_method": "modelopt", "quant_algo": "W2"}, "'W2' is not known"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 2, "type": "float"}}},
            },
            "2-bit float",
        ),
    ],
)
def test_unknown_quantisation_is_refused(config, message):
    with pytest.raises(ModelError, match=message):
        ModelShape.from_hf_config({**SIZES, "model_type": "llama", "rms_norm_eps": 1e-5, "quantization_config": config})


def test_the_file_of_modelopt_stands_beside_the_config(tmp_path):
    config = {**SIZES, "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    told = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(told))
    assert load_model_shape(str(tmp_path)).quantization == Quantization("nvfp4", kv_format="fp8")


def test_experts_and_latent_sizes_are_read():
    config = {**SIZES, **LATENT, "model_type": "deepseek_v2", "rms_norm_eps": 1e-6}
    shape = ModelShape.from_hf_config(config)
    assert shape.moe == MoE(8, 2, 48, shared_intermediate_size=96, num_dense_layers=2)
    assert shape.mla == MLA(24, 16, 8, 12, 40)
    assert shape.kv_bytes_per_token() == 7 * (24 + 8) * 2
    sparse = ModelShape.from_hf_config(
        {**SIZES, **QWEN_EXPERTS, "model_type": "qwen3_moe", "rms_norm_eps": 1e-6, "decoder_sparse_step": 2}
    )
    assert sparse.num_moe_layers == 2  # layers 1 and 5: every second one, and 3 is listed as dense


def test_an_unknown_kind_of_experts_is_an_error_that_names_the_field():
    with pytest.raises(ModelError, match="lacks the field num_local_experts"):
        ModelShape.from_hf_config({**SIZES, "model_type": "mixtral", "rms_norm_eps": 1e-5})
    with pytest.raises(ModelError, match="attention_bias"):
        ModelShape.from_hf_config(
            {**SIZES, **LATENT, "model_type": "deepseek_v3", "rms_norm_eps": 1e-6, "attention_bias": True}
        )
