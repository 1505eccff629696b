"""A forward pass over one whole sequence, built by hand."""

import torch

from engine.execution.kv_cache import KVCache
from engine.execution.model import ForwardInputs, Llama, PrefillChunk

BLOCK_SIZE = 16


def logits_of(model: Llama, token_ids: list[int]) -> torch.Tensor:
    """Logits after every token: [tokens, vocabulary]."""
    count = len(token_ids)
    blocks = -(-count // BLOCK_SIZE)
    cache = KVCache(model.shape, blocks + 1, BLOCK_SIZE, model.weights.dtype)
    table = torch.arange(blocks, 0, -1)  # backwards: the order of blocks in memory means nothing
    positions = torch.arange(count)
    slots = table[positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
    inputs = ForwardInputs(
        token_ids=torch.tensor(token_ids),
        positions=positions,
        slots=slots,
        num_decodes=0,
        groups=(),
        chunks=(PrefillChunk(0, count, 0, table),),
        sampled_rows=None,
    )
    return model.forward(inputs, cache)
