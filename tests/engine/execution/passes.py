"""A forward pass over one whole sequence, built by hand."""

import torch

from engine.execution.kv_cache import KVCache
from engine.execution.model import ForwardInputs, Llama, PrefillChunk
from engine.kernels.paged_attention import head_tables
from engine.kernels.rope import cache_rows

BLOCK_SIZE = 16


def logits_of(model: Llama, token_ids: list[int]) -> torch.Tensor:
    """Logits after every token: [tokens, vocabulary]."""
    count, kv_heads = len(token_ids), model.shape.num_kv_heads
    blocks = -(-count // BLOCK_SIZE)
    cache = KVCache(model.shape, blocks + 1, BLOCK_SIZE, model.weights.dtype)
    table = torch.arange(blocks, 0, -1)[None, :]  # backwards: the order of blocks in memory means nothing
    positions = torch.arange(count)
    slots = table[0, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
    inputs = ForwardInputs(
        token_ids=torch.tensor(token_ids),
        positions=positions,
        cache_rows=cache_rows(slots, kv_heads, BLOCK_SIZE),
        num_decodes=0,
        groups=(),
        chunks=(PrefillChunk(0, count, 0, head_tables(table, kv_heads)),),
        sampled_rows=None,
    )
    return model.forward(inputs, cache)
