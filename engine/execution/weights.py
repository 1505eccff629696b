"""A model's weights as the forward pass wants them: stacked projections, one number format, one device."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from engine.core.supported_models import unsupported_traits
from engine.execution.checkpoint import ROPE_DIVISORS, Checkpoint
from engine.execution.linear import Linear, packing_pays
from engine.execution.model import LayerWeights, LlamaWeights
from roofline.errors import InputError, ModelError
from roofline.formats import format_name
from roofline.model_shape import ModelShape

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TensorSource = Callable[[str], Tensor]


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a format name (`fp32`, `bf16`, `fp16`, in any spelling).

    Raises `InputError` for one that weights and activations cannot have.
    """
    short = format_name(name)
    if short not in _DTYPES:
        raise InputError(f"dtype {name!r} is not one that the engine computes in; use {', '.join(_DTYPES)}.")
    return _DTYPES[short]


def load_weights(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device | str = "cpu") -> LlamaWeights:
    """A checkpoint's weights; raises `ModelError` for a missing tensor or one of the wrong size.

    Quantised checkpoints are refused as well: their integers without their scales would load as nonsense.
    """
    sizes = tensor_sizes(checkpoint.shape)
    if checkpoint.shape.quantization:
        raise ModelError(
            f"{checkpoint.path} is stored in {checkpoint.shape.quantization.weight_format}, which the engine does not "
            "read; give the checkpoint in bf16 or fp16, or a GGUF file."
        )

    def source(name: str) -> Tensor:
        tensor = checkpoint.tensor(name)
        if tuple(tensor.shape) != sizes[name]:
            raise ModelError(
                f"{checkpoint.path}: tensor {name} has size {tuple(tensor.shape)}, but the model's description asks "
                f"for {sizes[name]}; the files do not belong together."
            )
        return tensor.to(device, dtype)

    weights = _assemble(checkpoint.shape, source)
    scaling = checkpoint.shape.rope_scaling
    if scaling is not None and scaling.kind == "tensor":
        return replace(weights, rope_divisors=checkpoint.tensor(ROPE_DIVISORS).double().cpu())
    return weights


def random_weights(
    shape: ModelShape, dtype: torch.dtype, device: torch.device | str = "cpu", seed: int = 0, scale: float = 0.02
) -> LlamaWeights:
    """Normal weights of standard deviation `scale`, norms one: real sizes and speed, no meaning."""
    sizes = tensor_sizes(shape)
    generator = torch.Generator(device).manual_seed(seed)

    def source(name: str) -> Tensor:
        if "norm" in name:
            return torch.ones(sizes[name], dtype=dtype, device=device)
        return torch.empty(sizes[name], dtype=dtype, device=device).normal_(0, scale, generator=generator)

    return _assemble(shape, source)


def tensor_sizes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model under its Hugging Face name, with its size.

    Raises `ModelError` for a model that the layers of `Llama` do not compute.
    """
    if unsupported := unsupported_traits(shape):
        raise ModelError(
            f"model {shape.name!r} has {', '.join(unsupported)}, which the engine does not compute; the roofline and "
            "the simulator know it. Serve a dense model with alike layers (Llama, Mistral, Qwen2, Qwen3, SmolLM2)."
        )
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab_size, shape.hidden_size)}
    for layer in range(shape.num_layers):
        sizes |= {f"model.layers.{layer}.{name}": size for name, size in _layer_sizes(shape).items()}
    sizes["model.norm.weight"] = (shape.hidden_size,)
    if not shape.tie_embeddings:
        sizes["lm_head.weight"] = (shape.vocab_size, shape.hidden_size)
    return sizes


def _layer_sizes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    hidden, ffn, q, kv = shape.hidden_size, shape.intermediate_size, shape.q_size, shape.kv_size
    sizes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, q),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (ffn, hidden),
        "mlp.up_proj.weight": (ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }
    if shape.attention_bias:
        sizes |= {"self_attn.q_proj.bias": (q,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,)}
    if shape.attention_output_bias:
        sizes["self_attn.o_proj.bias"] = (hidden,)
    if shape.qk_norm:
        sizes |= {f"self_attn.{name}_norm.weight": (shape.head_dim,) for name in "qk"}
    return sizes


def _assemble(shape: ModelShape, source: TensorSource) -> LlamaWeights:
    embedding = source("model.embed_tokens.weight")
    layers = tuple(_layer(shape, source, f"model.layers.{index}.") for index in range(shape.num_layers))
    head = embedding if shape.tie_embeddings else source("lm_head.weight")
    return LlamaWeights(embedding, layers, source("model.norm.weight"), _linear(head))


def _layer(shape: ModelShape, source: TensorSource, prefix: str) -> LayerWeights:
    def stacked(kind: str, *names: str) -> Tensor:
        return torch.cat([source(f"{prefix}{name}.{kind}") for name in names])

    qkv = tuple(f"self_attn.{name}_proj" for name in "qkv")
    output = "self_attn.o_proj"
    return LayerWeights(
        attention_norm=source(f"{prefix}input_layernorm.weight"),
        qkv=_linear(stacked("weight", *qkv), stacked("bias", *qkv) if shape.attention_bias else None),
        output=_linear(stacked("weight", output), stacked("bias", output) if shape.attention_output_bias else None),
        mlp_norm=source(f"{prefix}post_attention_layernorm.weight"),
        gate_up=_linear(stacked("weight", "mlp.gate_proj", "mlp.up_proj")),
        down=_linear(source(f"{prefix}mlp.down_proj.weight")),
        q_norm=source(f"{prefix}self_attn.q_norm.weight") if shape.qk_norm else None,
        k_norm=source(f"{prefix}self_attn.k_norm.weight") if shape.qk_norm else None,
    )


def _linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    return Linear(weight, bias, packs=packing_pays(weight))
