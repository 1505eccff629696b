"""The key-value metadata of a GGUF file in, the fields of a `ModelShape` out; only dense llama-like models."""

from collections.abc import Collection, Mapping
from typing import Any

from roofline.config_fields import Fields, integer, number, optional
from roofline.errors import ModelError
from roofline.model_parts import RopeScaling

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
    heads, hidden = integer(own, "attention.head_count"), integer(own, "embedding_length")
    return {
        "num_layers": integer(own, "block_count"),
        "hidden_size": hidden,
        "intermediate_size": integer(own, "feed_forward_length"),
        "num_heads": heads,
        "num_kv_heads": integer(own, "attention.head_count_kv", heads),
        "head_dim": integer(own, "attention.key_length", hidden // max(heads, 1)),
        "vocab_size": integer(own, "vocab_size", len(own.get("tokenizer.ggml.tokens", ()))),
        "max_position": integer(own, "context_length"),
        "rope_theta": number(own, "rope.freq_base", 10000.0),
        "rms_norm_eps": number(own, "attention.layer_norm_rms_epsilon"),
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
    original = optional(integer, own, "rope.scaling.original_context_length")
    return RopeScaling(str(kind), number(own, "rope.scaling.factor"), original)
