"""A Hugging Face `config.json`, parsed, in; the fields of a `ModelShape` out.

The only module that knows the field names of Hugging Face. An architecture it does not know is an error that names the
fields seen: a default would be a wrong number that looks right. Adding a family is one entry in `_FAMILIES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from roofline.config_fields import Fields, integer, number, optional, part
from roofline.errors import ModelError
from roofline.model_parts import MLA, MoE, RopeScaling
from roofline.quantization_config import read_quantization

Config = Mapping[str, Any]


def _no_layers(config: Config, num_layers: int) -> int:
    return 0


def _all_layers(config: Config, num_layers: int) -> int:
    return num_layers


def _alternating(config: Config, num_layers: int) -> int:
    """Every second layer slides, the first one included."""
    return -(-num_layers // 2)


def _patterned(config: Config, num_layers: int) -> int:
    """All layers but every `sliding_window_pattern`-th slide."""
    named = "sliding_window_pattern" if "sliding_window_pattern" in config else "_sliding_window_pattern"
    period = integer(config, named, 6)
    if period < 1:
        raise ModelError(f"model description has {named} = {period}; it must be at least 1.")
    return num_layers - num_layers // period


def _above_max_window_layers(config: Config, num_layers: int) -> int:
    """Where Qwen's switch is on, the layers from `max_window_layers` upwards slide."""
    return max(0, num_layers - integer(config, "max_window_layers", 28)) if config.get("use_sliding_window") else 0


def _num_experts(config: Config) -> int:
    """Routed experts of a layer, under any of the names that they go by."""
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    return integer(config, next((name for name in names if config.get(name) is not None), names[0]))


def _mixtral_experts(config: Config) -> MoE:
    return MoE(
        _num_experts(config),
        integer(config, "num_experts_per_tok"),
        integer(config, "intermediate_size"),
    )


def _gpt_oss_experts(config: Config) -> MoE:
    return MoE(
        _num_experts(config),
        integer(config, "num_experts_per_tok", integer(config, "experts_per_token", 0)),
        integer(config, "intermediate_size"),
        router_bias=True,
        expert_bias=True,
    )


def _qwen_experts(config: Config) -> MoE:
    """Qwen2-MoE, with a gated shared expert, and Qwen3-MoE, without one."""
    layers, period = integer(config, "num_hidden_layers"), integer(config, "decoder_sparse_step", 1)
    plain = {index for index in part(config, "mlp_only_layers", list) if isinstance(index, int)}
    sparse = [n for n in range(min(layers, _MANY_LAYERS)) if n not in plain and period > 0 and (n + 1) % period == 0]
    shared = integer(config, "shared_expert_intermediate_size", 0)
    return MoE(
        _num_experts(config),
        integer(config, "num_experts_per_tok"),
        integer(config, "moe_intermediate_size"),
        shared_intermediate_size=shared,
        num_dense_layers=layers - len(sparse),
        shared_gate=shared > 0,
    )


def _deepseek_experts(config: Config) -> MoE | None:
    if config.get("n_routed_experts", config.get("num_local_experts")) is None:
        return None
    layers, period = integer(config, "num_hidden_layers"), integer(config, "moe_layer_freq", 1)
    first = integer(config, "first_k_dense_replace", 0)
    sparse = [n for n in range(first, min(layers, _MANY_LAYERS)) if period > 0 and n % period == 0]
    size = integer(config, "moe_intermediate_size")
    return MoE(
        _num_experts(config),
        integer(config, "num_experts_per_tok"),
        size,
        shared_intermediate_size=size * integer(config, "n_shared_experts", 0),
        num_dense_layers=layers - len(sparse),
        router_bias=config.get("topk_method") == "noaux_tc" or config.get("model_type") == "deepseek_v3",
    )


def _latent_attention(config: Config) -> MLA:
    return MLA(
        kv_lora_rank=integer(config, "kv_lora_rank"),
        qk_nope_head_dim=integer(config, "qk_nope_head_dim"),
        qk_rope_head_dim=integer(config, "qk_rope_head_dim"),
        v_head_dim=integer(config, "v_head_dim"),
        q_lora_rank=optional(integer, config, "q_lora_rank"),
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """What an architecture fixes in code, not in its config.

    `absent` are the values that transformers takes for fields which configs of the family leave out. `slides` counts
    the sliding layers of a config without `layer_types`.
    """

    traits: Fields = field(default_factory=dict)
    absent: Fields = field(default_factory=dict)
    bias_by_config: bool = False  # attention_bias means all four projections
    slides: Callable[[Config, int], int] = _no_layers
    experts: Callable[[Config], MoE | None] | None = None
    latent: bool = False


_GEMMA = {"post_norms": True, "activation": "gelu"}
_GEMMA_ABSENT = {"tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6}
_GEMMA2_ABSENT = {**_GEMMA_ABSENT, "sliding_window": 4096, "head_dim": 256}
# Multi-modal Gemma 3 configs state the sizes in which the models differ and leave the rest to the class.
_GEMMA3_ABSENT = {
    **_GEMMA_ABSENT, "vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "max_position_embeddings": 131072, "rope_theta": 1e6,
}  # fmt: skip
# Versions after the first of Mistral write null.
_MISTRAL_ABSENT = {"sliding_window": 4096}

_FAMILIES: dict[str, _Family] = {
    "LlamaForCausalLM": _Family(bias_by_config=True),
    "MistralForCausalLM": _Family(absent=_MISTRAL_ABSENT, slides=_all_layers),
    "MixtralForCausalLM": _Family(slides=_all_layers, experts=_mixtral_experts),
    "Phi3ForCausalLM": _Family(slides=_all_layers),
    "Qwen2ForCausalLM": _Family({"attention_bias": True}, slides=_above_max_window_layers),
    "Qwen2MoeForCausalLM": _Family({"attention_bias": True}, slides=_above_max_window_layers, experts=_qwen_experts),
    "Qwen3ForCausalLM": _Family({"qk_norm": True}, bias_by_config=True, slides=_above_max_window_layers),
    "Qwen3MoeForCausalLM": _Family({"qk_norm": True}, bias_by_config=True, experts=_qwen_experts),
    "Gemma2ForCausalLM": _Family(_GEMMA, _GEMMA2_ABSENT, slides=_alternating),
    "Gemma3ForCausalLM": _Family({**_GEMMA, "qk_norm": True}, _GEMMA3_ABSENT, slides=_patterned),
    "DeepseekV2ForCausalLM": _Family(experts=_deepseek_experts, latent=True),
    "DeepseekV3ForCausalLM": _Family(experts=_deepseek_experts, latent=True),
    "GptOssForCausalLM": _Family(
        {"attention_sinks": True, "activation": "clamped silu"},
        absent={"attention_bias": True, "head_dim": 64},
        bias_by_config=True,
        slides=_alternating,
        experts=_gpt_oss_experts,
    ),
}
_ARCHITECTURE_OF_MODEL_TYPE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
}
_OTHER_ARCHITECTURE_NAMES = {"Gemma3ForConditionalGeneration": "Gemma3ForCausalLM"}
_NESTED = ("text_config", "llm_config", "language_config")
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu", "gelu_tanh": "gelu"}
_OUTER_FIELDS = ("quantization_config", "tie_word_embeddings")  # of a multi-modal config, when the inner has none
_MANY_LAYERS = 100_000  # a nonsensical count must end in an error, not in a long loop


def read_hf_config(config: Config) -> Fields:
    """`ModelShape` fields of a Hugging Face config, and its `architecture`.

    Raises `ModelError` for an unknown architecture, a missing field, or a feature that is not modelled.
    """
    inner = unwrap(config)
    architecture = _architecture(config, inner)
    family = _FAMILIES[architecture]
    told = {**{key: config[key] for key in _OUTER_FIELDS if key in config}, **inner}
    config = {**{key: value for key, value in family.absent.items() if key not in told}, **told}
    _refuse_unmodelled(config, architecture)
    latent = _latent_attention(config) if family.latent else None
    core = _core(config, latent)
    return {
        "architecture": architecture,
        **core,
        **_rope(config),
        **_bias(config, family),
        **_windows(config, family),
        "moe": family.experts(config) if family.experts else None,
        "mla": latent,
        "quantization": read_quantization(part(config, "quantization_config", dict), core["num_layers"]),
        **family.traits,
    }


def hf_dtype(config: Config) -> str | None:
    """The dtype a config declares for its weights under either spelling, None where it declares none."""
    inner = unwrap(config)
    found = inner.get("dtype") or inner.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return str(found) if found else None


def unwrap(config: Config) -> Config:
    """The language model's part of a multi-modal config."""
    for key in _NESTED:
        if isinstance(config.get(key), Mapping):
            return unwrap(config[key])
    return config


def _architecture(config: Config, inner: Config) -> str:
    by_type = _ARCHITECTURE_OF_MODEL_TYPE.get(str(inner.get("model_type")))
    named = part(inner, "architectures", list) or part(config, "architectures", list)
    first = str(named[0]) if named else str(by_type)
    first = _OTHER_ARCHITECTURE_NAMES.get(first, first)
    if first in _FAMILIES:
        return first
    if inner is not config and by_type:  # a multi-modal wrapper around a language model that is known
        return by_type
    raise ModelError(
        f"model architecture {config.get('architectures')} (model_type {inner.get('model_type')!r}) is not known; "
        f"known are {', '.join(_FAMILIES)}; the config has the fields {', '.join(sorted(inner)) or '(none)'}."
    )


def _core(config: Config, latent: MLA | None) -> Fields:
    heads, hidden = integer(config, "num_attention_heads"), integer(config, "hidden_size")
    if latent is None and (heads < 1 or (config.get("head_dim") is None and hidden % heads)):
        raise ModelError(f"model config has hidden_size {hidden} on {heads} attention heads and no head_dim.")
    return {
        "num_layers": integer(config, "num_hidden_layers"),
        "hidden_size": hidden,
        "intermediate_size": integer(config, "intermediate_size"),
        "num_heads": heads,
        "num_kv_heads": integer(config, "num_key_value_heads", heads),
        "head_dim": latent.qk_head_dim if latent else integer(config, "head_dim", hidden // heads),
        "vocab_size": integer(config, "vocab_size"),
        "max_position": integer(config, "max_position_embeddings"),
        "rms_norm_eps": number(config, "rms_norm_eps"),
        "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
    }


def _refuse_unmodelled(config: Config, architecture: str) -> None:
    """Raise where a config asks for what the arithmetic and the layers would get wrong."""
    named = config.get("hidden_act") or config.get("hidden_activation") or "silu"
    activation = _ACTIVATIONS.get(str(named))
    expected = "gelu" if architecture.startswith("Gemma") else "silu"
    if activation != expected:
        raise ModelError(f"model config has hidden_act {named!r}; {architecture} is modelled with {expected}.")
    if config.get("mlp_bias"):
        raise ModelError("model config has mlp_bias true; biases in the MLP are not supported.")
    if config.get("attention_bias") and _FAMILIES[architecture].latent:
        raise ModelError("model config has attention_bias true, which latent attention is not modelled with.")


def _bias(config: Config, family: _Family) -> Fields:
    bias = family.bias_by_config and bool(config.get("attention_bias", False))
    return {"attention_bias": bias, "attention_output_bias": bias}


def _windows(config: Config, family: _Family) -> Fields:
    """How many layers slide, and their window; a window as long as the context is none."""
    num_layers = integer(config, "num_hidden_layers")
    kinds = part(config, "layer_types", list)
    if kinds:
        unknown = {str(kind) for kind in kinds} - {"full_attention", "sliding_attention"}
        if unknown or len(kinds) != num_layers:
            raise ModelError(
                f"model config has {len(kinds)} layer_types for {num_layers} layers"
                + (f", of kinds that are not modelled: {', '.join(sorted(unknown))}." if unknown else ".")
            )
        sliding = kinds.count("sliding_attention")
    else:
        sliding = 0 if config.get("sliding_window") is None else family.slides(config, num_layers)
    window = integer(config, "sliding_window") if sliding else None
    if window is None or window >= integer(config, "max_position_embeddings"):
        return {}
    return {"sliding_window": window, "sliding_layers": sliding}


def _rope(config: Config) -> Fields:
    """Base, scaling and rotated part, from rope_parameters (new spelling) or rope_theta and rope_scaling (old)."""
    new = part(config, "rope_parameters", dict)
    new = new["full_attention"] if isinstance(new.get("full_attention"), dict) else new
    scaling = {**part(config, "rope_scaling", dict), **new}
    theta = number({"rope_theta": scaling.get("rope_theta", config.get("rope_theta", 10000.0))}, "rope_theta")
    partial = {"partial_rotary_factor": scaling.get("partial_rotary_factor", config.get("partial_rotary_factor"))}
    found = {"rope_theta": theta, "rotary_fraction": number(partial, "partial_rotary_factor", 1.0)}
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    return found if kind == "default" else {**found, "rope_scaling": _rope_scaling(kind, scaling, config)}


def _rope_scaling(kind: str, scaling: Config, config: Config) -> RopeScaling:
    original = optional(integer, scaling, "original_max_position_embeddings")
    if kind in ("longrope", "su"):  # Phi-3: a factor for each frequency, and the stretch only as two lengths
        original = original or integer(config, "original_max_position_embeddings")
        return RopeScaling(kind, integer(config, "max_position_embeddings") / max(1, original), original)
    return RopeScaling(
        kind=kind,
        factor=number(scaling, "factor"),
        original_max_position=original,
        low_freq_factor=optional(number, scaling, "low_freq_factor"),
        high_freq_factor=optional(number, scaling, "high_freq_factor"),
    )
