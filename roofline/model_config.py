"""Foreign descriptions of a model (Hugging Face config, GGUF metadata) in, the fields of a `ModelShape` out.

The only module that knows the field names of others. An architecture it does not know is an error that names the
fields seen: a default would be a wrong number that looks right. Adding a family is one entry in a table below.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from roofline.errors import ModelError

Fields = dict[str, Any]
Part = TypeVar("Part", list[Any], dict[str, Any])
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the context the model was trained on.

    `kind` is Hugging Face's rope_type (llama3, linear, dynamic, yarn), or `tensor` where a GGUF file carries the
    frequency divisors as the tensor `rope_freqs.weight` (then `factor` is 1 and says nothing).
    """

    kind: str
    factor: float
    original_max_position: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None


# Traits that a family fixes in code, not in its config.
_FAMILIES: dict[str, Fields] = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {},
    "Qwen2ForCausalLM": {"attention_bias": True},
    "Qwen3ForCausalLM": {"qk_norm": True},
}
_BIAS_BY_CONFIG = ("LlamaForCausalLM", "Qwen3ForCausalLM")  # attention_bias means all four projections
_ARCHITECTURE_OF_MODEL_TYPE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_ABSURD = 1e18  # no figure of a model comes near; NaN and infinity fail the comparison as well
_NESTED = ("text_config", "llm_config", "language_config")
_MISTRAL_DEFAULT_WINDOW = 4096  # what transformers assumes where the field is absent; v0.2 and later write null


def read_hf_config(config: Mapping[str, Any]) -> Fields:
    """`ModelShape` fields of a Hugging Face config, and its `architecture`.

    Raises `ModelError` for an unknown architecture, a missing field, or a feature that is not modelled.
    """
    config = _unwrap(config)
    architecture = _architecture(config)
    _refuse_unmodelled(config, architecture)
    heads, hidden = _integer(config, "num_attention_heads"), _integer(config, "hidden_size")
    if heads < 1 or (config.get("head_dim") is None and hidden % heads):
        raise ModelError(f"model config has hidden_size {hidden} on {heads} attention heads and no head_dim.")
    return {
        "architecture": architecture,
        "num_layers": _integer(config, "num_hidden_layers"),
        "hidden_size": hidden,
        "intermediate_size": _integer(config, "intermediate_size"),
        "num_heads": heads,
        "num_kv_heads": _integer(config, "num_key_value_heads", heads),
        "head_dim": _integer(config, "head_dim", hidden // heads),
        "vocab_size": _integer(config, "vocab_size"),
        "max_position": _integer(config, "max_position_embeddings"),
        "rms_norm_eps": _number(config, "rms_norm_eps"),
        "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
        **_rope(config),
        **_bias(config, architecture),
        **_FAMILIES[architecture],
    }


def hf_dtype(config: Mapping[str, Any]) -> str | None:
    """The dtype a config declares for its weights under either spelling, None where it declares none."""
    inner = _unwrap(config)
    found = inner.get("dtype") or inner.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return str(found) if found else None


def _unwrap(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a multi-modal config."""
    for key in _NESTED:
        if isinstance(config.get(key), Mapping):
            return _unwrap(config[key])
    return config


def _architecture(config: Mapping[str, Any]) -> str:
    named = _part(config, "architectures", list) or [_ARCHITECTURE_OF_MODEL_TYPE.get(str(config.get("model_type")))]
    if str(named[0]) in _FAMILIES:
        return str(named[0])
    raise ModelError(
        f"model architecture {config.get('architectures')} (model_type {config.get('model_type')!r}) is not known; "
        f"known are {', '.join(_FAMILIES)}; the config has the fields {', '.join(sorted(config)) or '(none)'}."
    )


def _refuse_unmodelled(config: Mapping[str, Any], architecture: str) -> None:
    """Raise where a config asks for what the arithmetic and the layers would get wrong."""
    mistral = architecture == "MistralForCausalLM"
    window = config.get("sliding_window", _MISTRAL_DEFAULT_WINDOW if mistral else None)
    in_use = window is not None and config.get("use_sliding_window", mistral)
    slides = "sliding_attention" in _part(config, "layer_types", list)
    if slides or (in_use and _integer(config, "sliding_window", window) < _integer(config, "max_position_embeddings")):
        raise ModelError(
            f"model config uses sliding-window attention (sliding_window {window}), which is not supported yet; "
            "a full-attention model of the same family is."
        )
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise ModelError(f"model config has hidden_act {config['hidden_act']!r}; only silu (SwiGLU) is supported.")
    if config.get("mlp_bias"):
        raise ModelError("model config has mlp_bias true; biases in the MLP are not supported.")


def _bias(config: Mapping[str, Any], architecture: str) -> Fields:
    bias = architecture in _BIAS_BY_CONFIG and bool(config.get("attention_bias", False))
    return {"attention_bias": bias, "attention_output_bias": bias}


def _rope(config: Mapping[str, Any]) -> Fields:
    """Base and scaling from rope_parameters (new spelling) or rope_theta and rope_scaling (old)."""
    scaling = {**_part(config, "rope_scaling", dict), **_part(config, "rope_parameters", dict)}
    theta = _number({"rope_theta": scaling.get("rope_theta", config.get("rope_theta", 10000.0))}, "rope_theta")
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    return {
        "rope_theta": theta,
        "rope_scaling": RopeScaling(
            kind=kind,
            factor=_number(scaling, "factor"),
            original_max_position=_optional(_integer, scaling, "original_max_position_embeddings"),
            low_freq_factor=_optional(_number, scaling, "low_freq_factor"),
            high_freq_factor=_optional(_number, scaling, "high_freq_factor"),
        ),
    }


_GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")


def read_gguf_metadata(metadata: Mapping[str, Any], tensor_names: Collection[str]) -> Fields:
    """`ModelShape` fields of a GGUF file's metadata and tensor names.

    Raises `ModelError` for an unknown architecture, a missing key, or a mixture of experts.
    """
    architecture = metadata.get("general.architecture")
    if architecture not in _GGUF_ARCHITECTURES:
        keys = ", ".join(sorted(key for key in metadata if not key.startswith("tokenizer."))) or "(none)"
        raise ModelError(
            f"GGUF architecture {architecture!r} is not known; known are {', '.join(_GGUF_ARCHITECTURES)}; "
            f"the file has the keys {keys}."
        )
    own = {key.removeprefix(f"{architecture}."): value for key, value in metadata.items()}
    if own.get("expert_count"):
        raise ModelError(f"GGUF model has {own['expert_count']} experts; mixtures of experts are not supported yet.")
    heads, hidden = _integer(own, "attention.head_count"), _integer(own, "embedding_length")
    return {
        "num_layers": _integer(own, "block_count"),
        "hidden_size": hidden,
        "intermediate_size": _integer(own, "feed_forward_length"),
        "num_heads": heads,
        "num_kv_heads": _integer(own, "attention.head_count_kv", heads),
        "head_dim": _integer(own, "attention.key_length", hidden // max(heads, 1)),
        "vocab_size": _integer(own, "vocab_size", len(own.get("tokenizer.ggml.tokens", ()))),
        "max_position": _integer(own, "context_length"),
        "rope_theta": _number(own, "rope.freq_base", 10000.0),
        "rms_norm_eps": _number(own, "attention.layer_norm_rms_epsilon"),
        "tie_embeddings": "output.weight" not in tensor_names,
        "attention_bias": "blk.0.attn_q.bias" in tensor_names,
        "attention_output_bias": "blk.0.attn_output.bias" in tensor_names,
        "qk_norm": "blk.0.attn_q_norm.weight" in tensor_names,
        "rope_scaling": _gguf_rope_scaling(own, tensor_names),
    }


def _gguf_rope_scaling(own: Mapping[str, Any], tensor_names: Collection[str]) -> RopeScaling | None:
    if "rope_freqs.weight" in tensor_names:
        return RopeScaling(kind="tensor", factor=1.0)
    kind = own.get("rope.scaling.type", "none")
    if kind == "none":
        return None
    original = _optional(_integer, own, "rope.scaling.original_context_length")
    return RopeScaling(str(kind), _number(own, "rope.scaling.factor"), original)


def _part(config: Mapping[str, Any], field: str, kind: type[Part]) -> Part:
    """A list or an object inside a config, empty where the field is absent or null."""
    value = config.get(field)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ModelError(f"model description has {field} = {value!r}; it must be a {kind.__name__}.")
    return value


def _optional(read: Callable[[Mapping[str, Any], str], Value], config: Mapping[str, Any], field: str) -> Value | None:
    return None if config.get(field) is None else read(config, field)


def _integer(config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = _number(config, field, default)
    if value != int(value):
        raise ModelError(f"model description has {field} = {value}; it must be a whole number.")
    return int(value)


def _number(config: Mapping[str, Any], field: str, default: float | None = None) -> float:
    value = config.get(field)
    value = default if value is None else value
    if value is None:
        raise ModelError(f"model description lacks the field {field}; it has {', '.join(sorted(config))}.")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _ABSURD:
        raise ModelError(f"model description has {field} = {value!r}; it must be one finite number.")
    return value
