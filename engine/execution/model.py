"""The forward pass of a dense Llama-style decoder over flattened tokens and a paged cache.

Prefill chunks and decodes go through the linear layers together; only attention tells them apart. Everything that
depends on the step and not on the layer is prepared once, in `ForwardInputs`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.execution.kv_cache import KVCache
from engine.execution.linear import Linear
from engine.kernels.paged_attention import decode_attention, prefill_attention
from engine.kernels.rms_norm import add_rms_norm, rms_norm
from engine.kernels.rope import RopeTable, apply_rope, rope_table, write_kv
from engine.kernels.silu_mul import silu_mul
from roofline.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decoding sequences of similar context, padded to one length; `rows` None means all decode rows."""

    rows: Tensor | None  # [sequences]
    tables: Tensor  # [sequences, blocks], null-padded
    mask: Tensor  # [sequences, 1, 1, blocks * block_size]: 0 in the context and window, -inf outside


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
    rope_divisors: Tensor | None = None  # [head_dim / 2] float64, of the rotary frequencies, where the file has them

    @property
    def dtype(self) -> torch.dtype:
        """Number format of weights and activations."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device


class Attention(Protocol):
    """How the tokens of one step see each other and the cache; prepared once a step, called once a layer."""

    def __call__(self, index: int, layer: LayerWeights, qkv: Tensor) -> Tensor:
        """Rotate and attend; the tokens' keys and values are in the cache afterwards.

        qkv: [tokens, (num_heads + 2 * num_kv_heads) * head_dim], projected; returns [tokens, num_heads * head_dim].
        """
        ...


class Llama:
    """A model ready to run: its shape, weights and rotary table."""

    def __init__(self, shape: ModelShape, weights: LlamaWeights) -> None:
        self.shape = shape
        self.weights = weights
        self.rope = rope_table(shape, weights.dtype, weights.device, weights.rope_divisors)

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs, cache: KVCache) -> Tensor:
        """Logits [sampled rows, vocabulary] as float32; the tokens' keys and values are in the cache afterwards."""
        attention = GatheredAttention(self.shape, self.rope, inputs, cache)
        return self.run(inputs.token_ids, attention, inputs.sampled_rows).float()

    @torch.inference_mode()
    def run(self, token_ids: Tensor, attention: Attention, sampled_rows: Tensor | None) -> Tensor:
        """Logits [sampled rows, vocabulary] in the weights' format; `sampled_rows` None: all."""
        weights, eps = self.weights, self.shape.rms_norm_eps
        hidden = weights.embedding.index_select(0, token_ids)
        change: Tensor | None = None  # what the block before adds; the next norm takes it in
        for index, layer in enumerate(weights.layers):
            norm = layer.attention_norm
            normed = rms_norm(hidden, norm, eps) if change is None else add_rms_norm(change, hidden, norm, eps)
            change = layer.output(attention(index, layer, layer.qkv(normed)))
            normed = add_rms_norm(change, hidden, layer.mlp_norm, eps)
            change = layer.down(silu_mul(layer.gate_up(normed)))
        assert change is not None, "a model has layers"
        if sampled_rows is not None:
            hidden, change = hidden.index_select(0, sampled_rows), change.index_select(0, sampled_rows)
        return weights.head(add_rms_norm(change, hidden, weights.final_norm, eps))


class GatheredAttention:
    """Attention of one step on a CPU: the cache is gathered, group by group and chunk by chunk."""

    def __init__(self, shape: ModelShape, rope: RopeTable, inputs: ForwardInputs, cache: KVCache) -> None:
        self._shape, self._inputs, self._cache = shape, inputs, cache
        self._rope = RopeTable(*(table.index_select(0, inputs.positions) for table in rope))

    def __call__(self, index: int, layer: LayerWeights, qkv: Tensor) -> Tensor:
        """See `Attention`."""
        q, k, v = self._heads(layer, qkv)
        k_cache, v_cache = self._cache.keys[index], self._cache.values[index]
        write_kv(k_cache, k, self._inputs.slots)
        write_kv(v_cache, v, self._inputs.slots)
        mixed = _attend(q, k_cache, v_cache, self._inputs, self._shape.sliding_window or 0)
        return mixed.view(len(mixed), -1)

    def _heads(self, layer: LayerWeights, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, rotated, and values: [tokens, heads, head_dim] each."""
        shape, rope = self._shape, self._rope
        heads, kv_heads = shape.num_heads, shape.num_kv_heads
        qk, v = qkv.view(-1, heads + 2 * kv_heads, shape.head_dim).split((heads + kv_heads, kv_heads), dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = qk.split((heads, kv_heads), dim=1)
            eps = shape.rms_norm_eps
            qk = torch.cat((rms_norm(q, layer.q_norm, eps), rms_norm(k, layer.k_norm, eps)), dim=1)
        q, k = apply_rope(qk, rope.cos, rope.sin).split((heads, kv_heads), dim=1)
        return q, k, v


def _attend(q: Tensor, k_cache: Tensor, v_cache: Tensor, inputs: ForwardInputs, window: int) -> Tensor:
    """Attention of all tokens of the step, [tokens, num_heads, head_dim]; the groups' masks know the window."""
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
        out[rows] = prefill_attention(q[rows], k_cache, v_cache, chunk.table, chunk.context, window)
    return out
