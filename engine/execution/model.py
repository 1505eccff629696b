"""The forward pass of a dense Llama-style decoder over flattened tokens and a paged cache.

Prefill chunks and decodes go through the linear layers together; only attention tells them apart. Everything that
depends on the step and not on the layer is prepared once, in `ForwardInputs`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.execution.kv_cache import KVCache
from engine.execution.linear import Linear
from engine.kernels.paged_attention import decode_attention, prefill_attention
from engine.kernels.rms_norm import rms_norm
from engine.kernels.rope import RopeTable, apply_rope, rope_table, write_kv
from engine.kernels.silu_mul import silu_mul
from roofline.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decoding sequences of similar context, padded to one length; `rows` None means all decode rows."""

    rows: Tensor | None  # [sequences]
    tables: Tensor  # [sequences, blocks], null-padded
    mask: Tensor  # [sequences, 1, 1, blocks * block_size]: 0 in the context, -inf beyond


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Rows [start, start + num_tokens) of the pass: tokens of one sequence after `context` cached ones."""

    start: int
    num_tokens: int
    context: int
    table: Tensor  # [blocks] of the sequence


@dataclass(frozen=True, slots=True)
class ForwardInputs:
    """One step's tokens, decodes first, then the chunks."""

    token_ids: Tensor  # [tokens]
    positions: Tensor  # [tokens]
    slots: Tensor  # [tokens], where in the cache their keys and values go
    num_decodes: int
    groups: tuple[DecodeGroup, ...]
    chunks: tuple[PrefillChunk, ...]
    sampled_rows: Tensor | None  # [rows whose logits are wanted]; None: all


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer; q, k, v and gate, up each stand stacked in one matrix."""

    attention_norm: Tensor  # [hidden]
    qkv: Linear  # [hidden] -> [(num_heads + 2 * num_kv_heads) * head_dim]
    output: Linear  # [num_heads * head_dim] -> [hidden]
    mlp_norm: Tensor  # [hidden]
    gate_up: Linear  # [hidden] -> [2 * intermediate]
    down: Linear  # [intermediate] -> [hidden]
    q_norm: Tensor | None = None  # [head_dim]
    k_norm: Tensor | None = None  # [head_dim]


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """All weights of a model, in its number format."""

    embedding: Tensor  # [vocabulary, hidden]
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor  # [hidden]
    head: Linear  # [hidden] -> [vocabulary]

    @property
    def dtype(self) -> torch.dtype:
        """Number format of weights and activations."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device


class Llama:
    """A model ready to run: its shape, weights and rotary table."""

    def __init__(self, shape: ModelShape, weights: LlamaWeights) -> None:
        self.shape = shape
        self.weights = weights
        self._rope = rope_table(shape, weights.dtype, weights.device)

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Tensor:
        """Logits [sampled rows, vocabulary] as float32; the tokens' keys and values are in the cache afterwards."""
        rope = RopeTable(*(table.index_select(0, inputs.positions) for table in self._rope))
        eps = self.shape.rms_norm_eps
        hidden = self.weights.embedding.index_select(0, inputs.token_ids)
        for index, layer in enumerate(self.weights.layers):
            normed = rms_norm(hidden, layer.attention_norm, eps)
            q, k, v = self._project(layer, normed, rope)
            write_kv(cache.keys[index], k, inputs.slots)
            write_kv(cache.values[index], v, inputs.slots)
            mixed = _attend(q, cache.keys[index], cache.values[index], inputs)
            hidden += layer.output(mixed.view(len(mixed), -1))
            hidden += layer.down(silu_mul(layer.gate_up(rms_norm(hidden, layer.mlp_norm, eps))))
        if inputs.sampled_rows is not None:
            hidden = hidden.index_select(0, inputs.sampled_rows)
        return self.weights.head(rms_norm(hidden, self.weights.final_norm, eps)).float()

    def _project(self, layer: LayerWeights, normed: Tensor, rope: RopeTable) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, rotated, and values: [tokens, heads, head_dim] each."""
        heads, kv_heads, head_dim = self.shape.num_heads, self.shape.num_kv_heads, self.shape.head_dim
        projected = layer.qkv(normed).view(-1, heads + 2 * kv_heads, head_dim)
        qk, v = projected.split((heads + kv_heads, kv_heads), dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = qk.split((heads, kv_heads), dim=1)
            eps = self.shape.rms_norm_eps
            qk = torch.cat((rms_norm(q, layer.q_norm, eps), rms_norm(k, layer.k_norm, eps)), dim=1)
        q, k = apply_rope(qk, rope.cos, rope.sin).split((heads, kv_heads), dim=1)
        return q, k, v


def _attend(q: Tensor, k_cache: Tensor, v_cache: Tensor, inputs: ForwardInputs) -> Tensor:
    """Attention of all tokens of the step: [tokens, num_heads, head_dim]."""
    decodes = q[: inputs.num_decodes]
    if not inputs.chunks and inputs.groups[0].rows is None:
        return decode_attention(decodes, k_cache, v_cache, inputs.groups[0].tables, inputs.groups[0].mask)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for group in inputs.groups:
        if group.rows is None:
            out[: inputs.num_decodes] = decode_attention(decodes, k_cache, v_cache, group.tables, group.mask)
        else:
            part = decode_attention(decodes[group.rows], k_cache, v_cache, group.tables, group.mask)
            out.index_copy_(0, group.rows, part)
    for chunk in inputs.chunks:
        rows = slice(chunk.start, chunk.start + chunk.num_tokens)
        out[rows] = prefill_attention(q[rows], k_cache, v_cache, chunk.table, chunk.context)
    return out
