"""Attention of one step on a device: decodes and chunks of prompts in one pass each, whatever their number."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.execution.kv_cache import KVCache
from engine.execution.model import LayerWeights
from engine.kernels.paged_decode import paged_decode
from engine.kernels.paged_prefill import Chunks, paged_prefill
from engine.kernels.paged_shape import AttentionOptions
from engine.kernels.rope import HeadNorm, PagedKV, RopeTable, rope_and_write


@dataclass(frozen=True, slots=True)
class DeviceAttention:
    """What the layers of a step share: decodes stand first, then the chunks' tokens.

    positions, slots: [tokens] int32; tables: [decodes, blocks]; contexts: [decodes], with the token's own, 0 for an
    idle row.
    """

    rope: RopeTable
    cache: KVCache
    options: AttentionOptions
    positions: Tensor
    slots: Tensor
    tables: Tensor
    contexts: Tensor
    chunks: Chunks | None
    eps: float

    def __call__(self, index: int, layer: LayerWeights, qkv: Tensor) -> Tensor:
        """See `model.Attention`."""
        k_cache, v_cache, decodes = self.cache.keys[index], self.cache.values[index], len(self.contexts)
        kv = PagedKV(k_cache, v_cache, self.options.k_scale, self.options.v_scale)
        weights = layer.q_norm, layer.k_norm
        norm = None if weights[0] is None or weights[1] is None else HeadNorm(weights[0], weights[1], self.eps)
        q = rope_and_write(qkv, self.rope, self.positions, self.slots, kv, norm)
        if self.chunks is None:
            return paged_decode(q, k_cache, v_cache, self.tables, self.contexts, self.options).flatten(1)
        out = torch.empty_like(q)
        if decodes:
            out[:decodes] = paged_decode(q[:decodes], k_cache, v_cache, self.tables, self.contexts, self.options)
        out[decodes:] = paged_prefill(q[decodes:], k_cache, v_cache, self.chunks, self.options)
        return out.flatten(1)
