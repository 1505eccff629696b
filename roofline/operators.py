"""What each kind of operation computes and moves: FLOPs and bytes from sizes, for one rank, a number or arrays alike.

A matrix product of m rows counts 2 m k n FLOPs and moves its input, its weights and its output once. Attention counts
by query-key pairs and moves the keys and values it reads, once for all heads that share them. Useful work only: what
padding to tiles, launches and starts of work items cost is the step time's business.
"""

from dataclasses import dataclass
from math import log
from typing import Literal, TypeVar

import numpy as np

from roofline.model_parts import MLA
from roofline.step_time import BatchWork, FloatArray

Number = TypeVar("Number", float, FloatArray)
Class = Literal["gemm", "elementwise", "attention"]


@dataclass(frozen=True, slots=True)
class Linear:
    """An operation that does the same to every row (token, or row of logits) with weights that it reads once.

    Matrix products and everything elementwise; `calls` times a pass, each of so many kernels.
    """

    name: str
    calls: int
    flops_per_row: float
    bytes_per_row: float
    weight_bytes: float = 0.0
    dtype: str = "bf16"  # of the operands, which says how fast they are multiplied
    kernels: int = 1

    @property
    def kind(self) -> Class:
        """Matrix product or elementwise."""
        return "gemm" if self.weight_bytes else "elementwise"

    def work(self, rows: Number) -> tuple[Number, Number]:
        """FLOPs and bytes of one call."""
        return rows * self.flops_per_row, rows * self.bytes_per_row + self.weight_bytes


@dataclass(frozen=True, slots=True)
class Experts:
    """The routed experts of a layer: three matrix products over the experts that a batch touches.

    Each of `group_tokens` tokens a row (data-parallel ranks bring theirs) goes to `chosen` of `total` experts, of
    which this rank holds `held`. Routing is taken to be uniform, times `imbalance` on the busiest rank.
    """

    name: str
    calls: int
    hidden_size: int
    intermediate_size: int  # of one expert on this rank
    total: int
    held: int
    chosen: int
    weight_element_bytes: float
    activation_bytes: float
    ranks_of_tokens: int = 1
    imbalance: float = 1.0
    dtype: str = "bf16"
    kernels: int = 4  # sort by expert, gate and up, activation, down and sum

    kind = "gemm"

    def work(self, rows: Number) -> tuple[Number, Number]:
        """FLOPs and bytes of one call on the busiest rank, for `rows` tokens of each data-parallel rank."""
        matrices = 3 * self.hidden_size * self.intermediate_size
        pairs = self.busiest_pairs(rows * self.ranks_of_tokens)
        touched = self.touched(rows * self.ranks_of_tokens)
        per_pair = self.activation_bytes * (2 * self.hidden_size + 3 * self.intermediate_size)
        return 2 * matrices * pairs, touched * matrices * self.weight_element_bytes + pairs * per_pair

    def touched(self, tokens: Number) -> Number:
        """Expected number of this rank's experts that `tokens` tokens reach: held x (1 - (1 - k / E)^tokens)."""
        missed: Number = (1 - self.chosen / self.total) ** tokens
        return self.held * (1 - missed)

    def busiest_pairs(self, tokens: Number) -> Number:
        """Token-expert pairs on the busiest rank.

        The mean, the imbalance of the model's routing, and the excess that chance alone gives the largest of several
        shares, sqrt(2 ln(ranks) mean); never more than every token choosing this rank's experts.
        """
        ranks = self.total / self.held
        mean = tokens * self.chosen / ranks
        busiest = self.imbalance * mean + (2 * log(ranks) * mean) ** 0.5
        smaller: Number = np.minimum(busiest, tokens * min(self.chosen, self.held))
        return smaller


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of one rank over `calls` layers alike, the window being of that kind of layer.

    `flops_per_pair` and `flops_per_expanded` count all of the rank's heads: the second is what latent attention spends
    on a cached token to expand it for a prefill. `score_bytes_per_pair` is 0 where the scores stay on the chip.
    """

    calls: int
    num_heads: int
    num_kv_heads: int
    decode_flops_per_pair: float
    prefill_flops_per_pair: float
    kv_bytes_per_token: float  # of one layer
    query_bytes_per_token: float  # query in and answer out
    window: int | None = None
    flops_per_expanded: float = 0.0
    score_bytes_per_pair: float = 0.0

    def prefill(self, work: BatchWork) -> tuple[float, float]:
        """FLOPs and bytes of one layer for the chunks of a pass.

        Windowed: at most `window` pairs a token and `window` cached tokens a chunk, exact once a chunk is past it.
        """
        pairs: float = work.prefill_attn_pairs
        cached: float = work.prefill_kv_tokens
        if self.window is not None:
            pairs = np.minimum(pairs, work.prefill_tokens * self.window)
            cached = np.minimum(cached, work.num_prefill_seqs * self.window)
        flops = pairs * self.prefill_flops_per_pair + cached * self.flops_per_expanded
        moved = (cached + work.prefill_tokens) * self.kv_bytes_per_token
        return flops, moved + work.prefill_tokens * self.query_bytes_per_token + pairs * self.score_bytes_per_pair

    def decode(self, work: BatchWork, kv_tokens: Number, kv_max: Number) -> tuple[Number, Number]:
        """FLOPs and bytes of one layer for decoding against `kv_tokens` of cache, one step or an array of them.

        The cache is read once a sequence. Tokens beyond one a sequence (speculation) see the longest context, which is
        exact where contexts are equal and keeps the time from falling when a sequence joins.
        """
        if self.window is not None:
            kv_tokens = np.minimum(kv_tokens, work.num_decode_seqs * self.window)
            kv_max = np.minimum(kv_max, self.window)
        extra = work.decode_tokens - work.num_decode_seqs
        seen = kv_tokens + work.decode_tokens
        pairs = seen + extra * kv_max
        moved = seen * self.kv_bytes_per_token + work.decode_tokens * self.query_bytes_per_token
        moved = moved + pairs * self.score_bytes_per_pair
        return pairs * self.decode_flops_per_pair, moved

    def prefill_padding(self, work: BatchWork, tile_rows: int) -> float:
        """FLOPs of one layer beyond the useful ones: the last tile of a chunk's query rows is half full on average."""
        seen: float = work.prefill_kv_tokens
        if self.window is not None:
            seen = np.minimum(seen, work.num_prefill_seqs * self.window)
        return (tile_rows - 1) / 2 * (seen + work.prefill_tokens) * self.prefill_flops_per_pair

    def decode_padding(self, work: BatchWork, kv_tokens: Number, tile_rows: int) -> Number:
        """FLOPs of one layer beyond the useful ones of sequences that decode beside a chunk.

        Decoding alone has kernels that share a tile among the heads of a key; beside a chunk it runs in the chunk's
        kernel, a row to a tile. The many heads of latent attention fill the tile by themselves.
        """
        if self.window is not None:
            kv_tokens = np.minimum(kv_tokens, work.num_decode_seqs * self.window)
        rows = max(0.0, (tile_rows - 1) / 2 - self.num_heads / self.num_kv_heads)
        return rows * kv_tokens * self.decode_flops_per_pair

    def prefill_items(self, work: BatchWork, tile_rows: int) -> float:
        """Work items of one layer: a tile of query rows, those of heads that share keys side by side."""
        rows = work.prefill_tokens * self.num_heads / self.num_kv_heads
        return self.num_kv_heads * (rows / tile_rows + work.num_prefill_seqs)

    def decode_items(self, work: BatchWork) -> float:
        """Work items of one layer: a KV head of a sequence."""
        return self.num_kv_heads * work.num_decode_seqs


def gemm(name: str, calls: int, k: int, n: int, element_bytes: tuple[float, float], dtype: str = "bf16") -> Linear:
    """A product of rows with a k x n matrix; `element_bytes` of weights and of activations."""
    weight, activation = element_bytes
    return Linear(name, calls, 2.0 * k * n, (k + n) * activation, k * n * weight, dtype)


def mla_flops_per_pair(mla: MLA, num_heads: int) -> tuple[float, float]:
    """Of decode, in the compressed space (scores over latent and rotary part, values over the latent), and of prefill.

    A prefill expands keys and values first, which makes its pairs cheaper: DeepSeek-V2, section 2.1.
    """
    decode = 2.0 * num_heads * (2 * mla.kv_lora_rank + mla.qk_rope_head_dim)
    return decode, 2.0 * num_heads * (mla.qk_head_dim + mla.v_head_dim)
