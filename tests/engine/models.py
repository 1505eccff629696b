"""Models for the engine's tests: a tiny random one, and transformers' Llama on the same weights as the oracle."""

from pathlib import Path

import torch

from engine.execution.model import Llama
from engine.execution.weights import load_weights, tensor_sizes
from roofline.model_shape import ModelShape

# Odd sizes on purpose: a group of 3 query heads a KV head, a vocabulary that is no power of two.
TINY = ModelShape(
    name="tiny",
    num_layers=2,
    hidden_size=48,
    intermediate_size=80,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=101,
    max_position=256,
    rope_theta=10000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
)


class MemoryCheckpoint:
    """A checkpoint that is nowhere on disk: normal weights, wide enough that greedy answers vary."""

    def __init__(self, shape: ModelShape, seed: int = 0) -> None:
        self.name, self.path, self.shape = shape.name, Path("memory"), shape
        generator = torch.Generator().manual_seed(seed)
        self.tensors = {
            name: torch.randn(size, generator=generator) * (0.1 if "norm" in name else 0.25) + ("norm.weight" in name)
            for name, size in tensor_sizes(shape).items()
        }

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name]


def tiny_model(shape: ModelShape = TINY, dtype: torch.dtype = torch.float32) -> Llama:
    """The engine's model of a `MemoryCheckpoint`."""
    return Llama(shape, load_weights(MemoryCheckpoint(shape), dtype))


def reference(checkpoint, dtype: torch.dtype = torch.float32):
    """Transformers' model of a checkpoint: Qwen3 with head norms, Qwen2 with its biases, else Llama."""
    import transformers

    shape = checkpoint.shape
    qwen2 = shape.attention_bias and not shape.attention_output_bias
    family = "Qwen3" if shape.qk_norm else "Qwen2" if qwen2 else "Llama"
    config = getattr(transformers, f"{family}Config")(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position,
        rms_norm_eps=shape.rms_norm_eps,
        rope_parameters=_rope_parameters(shape),
        tie_word_embeddings=shape.tie_embeddings,
        attention_bias=shape.attention_bias,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    state = {name: checkpoint.tensor(name) for name in tensor_sizes(shape)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model.to(dtype)


def _rope_parameters(shape: ModelShape) -> dict:
    scaling = shape.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": shape.rope_theta}
    found = {
        "rope_type": scaling.kind,
        "rope_theta": shape.rope_theta,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_max_position,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
    }
    return {name: value for name, value in found.items() if value is not None}


@torch.inference_mode()
def greedy_tokens(model, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding by transformers, one sequence with a contiguous cache: nothing paged, chunked or batched."""
    out, cache, token_ids = [], None, prompt
    for _ in range(count):
        result = model(torch.tensor([token_ids]), past_key_values=cache, use_cache=True)
        cache, token_ids = result.past_key_values, [int(result.logits[0, -1].argmax())]
        out += token_ids
    return out
