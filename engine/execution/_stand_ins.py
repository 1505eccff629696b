import torch
from engine.kernels.rms_norm import rms_norm
from engine.kernels.rope import apply_rope
from engine.execution.sampler import uniforms
from engine.kernels.sampling import Filters, draw
import numpy as np
from typing import NamedTuple, Any


class PagedKV(NamedTuple):
    keys: Any
    values: Any
    k_scale: float = 1.0
    v_scale: float = 1.0


class HeadNorm(NamedTuple):
    q: Any
    k: Any
    eps: float


def rope_and_write(qkv, table, positions, slots, cache, norm=None):
    k_cache, v_cache = cache.keys, cache.values
    q_norm, k_norm, eps = norm or (None, None, 0)
    d = k_cache.shape[-1]
    K = k_cache.shape[-2]
    H = qkv.shape[-1] // d - 2 * K
    qk, v = qkv.view(-1, H + 2 * K, d).split((H + K, K), 1)
    q, k = qk.split((H, K), 1)
    if q_norm is not None:
        q, k = rms_norm(q, q_norm, eps), rms_norm(k, k_norm, eps)
    at = positions.clamp(min=0)
    cos, sin = table.cos.index_select(0, at), table.sin.index_select(0, at)
    q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
    keep = slots >= 0
    for c, x in ((k_cache, k), (v_cache, v)):
        c.view(-1, K, d)[slots[keep].long()] = x[keep].to(c.dtype)
    return q.contiguous()


def sample(logits, temperature, top_k, top_p, min_p, seeds, positions):
    logits = logits.float()
    tokens = logits.argmax(-1)
    rows = (temperature > 0).nonzero()[:, 0]
    if len(rows):
        u = torch.from_numpy(uniforms(seeds[rows].numpy().astype(np.uint64), positions[rows].numpy().astype(np.int64)))
        tokens[rows] = draw(logits[rows], Filters(temperature[rows], top_k[rows], top_p[rows], min_p[rows]), u)
    return tokens
