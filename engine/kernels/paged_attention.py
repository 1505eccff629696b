"""Attention over a paged cache, torch reference: one query token a sequence (decode), or a chunk of one (prefill).

A layer's cache is [num_blocks, num_kv_heads, block_size, head_dim]. Grouped queries share a KV head, so a KV head's
queries are the rows of one matrix product, and nothing is repeated in memory.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def head_tables(block_tables: Tensor, num_kv_heads: int) -> Tensor:
    """(block, head) tiles in the order of sequences, heads, blocks, for `decode_attention` and `prefill_attention`.

    block_tables: [sequences, blocks], null-padded; returns [sequences * num_kv_heads * blocks].
    """
    heads = torch.arange(num_kv_heads, device=block_tables.device)[None, :, None]
    return (block_tables[:, None, :] * num_kv_heads + heads).flatten()


def _gather(cache: Tensor, tables: Tensor, rows: int) -> Tensor:
    """The named tiles of a layer's cache as [rows, tokens, head_dim]."""
    block_size, head_dim = cache.shape[-2:]
    return cache.view(-1, block_size, head_dim).index_select(0, tables).view(rows, -1, head_dim)


def decode_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, tables: Tensor, mask: Tensor) -> Tensor:
    """One query token a sequence against its whole cached context.

    q: [sequences, num_heads, head_dim]; tables: `head_tables` of the same sequences, padded to one length; mask:
    [sequences, 1, 1, padded tokens], 0 where a token is in the context and -inf elsewhere. Returns q's shape.
    """
    sequences, num_heads, head_dim = q.shape
    num_kv_heads = k_cache.shape[1]
    rows, group = sequences * num_kv_heads, num_heads // num_kv_heads
    k, v = _gather(k_cache, tables, rows), _gather(v_cache, tables, rows)
    scaled = (q * (1 / math.sqrt(head_dim))).reshape(rows, group, head_dim)
    scores = torch.bmm(scaled, k.transpose(1, 2))
    scores = scores.view(sequences, num_kv_heads, group, -1).add_(mask)
    probabilities = torch.softmax(scores, -1).view(rows, group, -1)
    return torch.bmm(probabilities, v).view(sequences, num_heads, head_dim)


def prefill_attention(q: Tensor, k_cache: Tensor, v_cache: Tensor, tables: Tensor, context: int) -> Tensor:
    """A chunk of one sequence's query tokens against its cache, causally.

    q: [tokens, num_heads, head_dim], the tokens at positions `context` onwards, whose own keys and values are in the
    cache already; tables: `head_tables` of that sequence. Returns q's shape.
    """
    tokens, num_heads, head_dim = q.shape
    num_kv_heads = k_cache.shape[1]
    end = context + tokens
    k, v = (_gather(cache, tables, num_kv_heads)[:, :end] for cache in (k_cache, v_cache))
    group = num_heads // num_kv_heads
    k, v = (x[:, None].expand(-1, group, -1, -1).reshape(1, num_heads, end, head_dim) for x in (k, v))
    mask = None
    if context:
        query = torch.arange(context, end, device=q.device)
        mask = torch.arange(end, device=q.device) <= query[:, None]
    out = F.scaled_dot_product_attention(q.transpose(0, 1)[None], k, v, attn_mask=mask, is_causal=not context)
    return out[0].transpose(0, 1)
