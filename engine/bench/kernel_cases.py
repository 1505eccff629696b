"""What `engine bench kernels` runs: each of the engine's operations at the sizes that decide a model's speed.

A case makes fresh random inputs, knows the fewest bytes and FLOPs its operation needs, and names everyone who can do
the work: the engine's public function (a Triton kernel on a GPU, its torch reference on a CPU), torch's own, and what
libraries are installed (rivals.py). `reference` computes the same in float32.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from engine.bench import rivals
from engine.bench.kernel_sizes import Case, Do, Heads, Inputs, Suite
from engine.kernels.paged_decode import paged_decode
from engine.kernels.paged_prefill import Chunks, paged_prefill
from engine.kernels.rms_norm import add_rms_norm
from engine.kernels.rope import PagedKV, RopeTable, apply_rope, rope_and_write, write_kv
from engine.kernels.sampling import Filters, sample
from engine.kernels.silu_mul import silu_mul
from roofline.step_time import chunk_attn_pairs

EPS = 1e-5
MOST_SAMPLED = 512  # rows: a step samples sequences, not tokens
SAMPLING = {"greedy": (0.0, 0, 1.0, 0.0), "temperature": (0.6, 0, 1.0, 0.0), "top-k, top-p": (0.6, 50, 0.9, 0.0)}
_LOGIT_SCALE = 8.0  # peaked as a model's: in a flat distribution rounding moves a draw from one token to the next


def cases(suite: Suite) -> list[Case]:
    """All of a suite's, attention first: it is what the targets are about."""
    decodes = [decode_case(suite, *sizes) for sizes in suite.decodes]
    prefills = [prefill_case(suite, *sizes) for sizes in suite.prefills]
    rowwise = [make(suite, rows) for rows in suite.rows for make in (norm_case, write_case, silu_case)]
    sampled = [rows for rows in suite.rows if rows <= MOST_SAMPLED]
    sampling = [sample_case(suite, rows, how) for rows in sampled for how in SAMPLING]
    return [*decodes, *prefills, *rowwise, *sampling]


def decode_case(suite: Suite, sequences: int, context: int) -> Case:
    """One query token of each sequence against its cached context, blocks scattered over the cache."""
    heads, width = suite.heads, suite.dtype.itemsize
    kv_bytes = 2 * sequences * context * heads.kv * heads.dim * width
    q_bytes = sequences * heads.query * heads.dim * width
    return Case(
        operation="decode attention",
        size=f"{sequences} x {context}",
        dtype=suite.dtype,
        memory_bytes=kv_bytes + 2 * q_bytes,
        flops=4 * sequences * context * heads.query * heads.dim,
        make=lambda device, draws: _paged(suite, [1] * sequences, [context - 1] * sequences, device, draws),
        ours=lambda x: paged_decode(x["q"], x["k_cache"], x["v_cache"], x["tables"], x["ends"]),
        reference=lambda x: _dense_attention(_widened(x), heads),
        rivals={"torch SDPA, not paged": lambda x: _dense_attention(x, heads), **rivals.decode()},
        target=suite.targets.get(("decode", sequences, context)),
    )


def prefill_case(suite: Suite, tokens: int, history: int) -> Case:
    """A chunk of one sequence's query tokens against its history and itself, causally."""
    heads, width = suite.heads, suite.dtype.itemsize
    kv_bytes = 2 * (history + tokens) * heads.kv * heads.dim * width
    return Case(
        operation="prefill attention",
        size=f"{tokens} on {history}",
        dtype=suite.dtype,
        memory_bytes=kv_bytes + 2 * tokens * heads.query * heads.dim * width,
        flops=4 * chunk_attn_pairs(tokens, history) * heads.query * heads.dim,
        make=lambda device, draws: _paged(suite, [tokens], [history], device, draws),
        ours=lambda x: paged_prefill(
            x["q"], x["k_cache"], x["v_cache"], Chunks(x["tables"], x["starts"], x["contexts"], tokens)
        ),
        reference=lambda x: _dense_attention(_widened(x), heads),
        rivals={"torch SDPA, not paged": lambda x: _dense_attention(x, heads), **rivals.prefill(tokens, history)},
        target=suite.targets.get(("prefill", tokens, history)),
    )


def norm_case(suite: Suite, rows: int) -> Case:
    """Residual addition and RMSNorm: two inputs read, the sum and the normalised rows written."""
    n = suite.hidden

    def make(device: torch.device, draws: torch.Generator) -> Inputs:
        sizes = {"x": (rows, n), "residual": (rows, n), "weight": (n,)}
        return {name: _normal(size, suite.dtype, device, draws) for name, size in sizes.items()}

    def plain(x: Inputs) -> Tensor:
        return F.rms_norm(x["residual"].add_(x["x"]), (n,), x["weight"], EPS)

    def outcome(x: Inputs, normed: Tensor) -> Tensor:
        return torch.cat((normed, x["residual"]))

    return Case(
        operation="residual + RMSNorm",
        size=f"{rows} x {n}",
        dtype=suite.dtype,
        memory_bytes=4 * rows * n * suite.dtype.itemsize,
        flops=5 * rows * n,
        make=make,
        ours=lambda x: add_rms_norm(x["x"], x["residual"], x["weight"], EPS),
        reference=lambda x: _in_float32(x, plain, outcome),
        rivals={"torch": plain, **rivals.norm(EPS)},
        outcome=outcome,
    )


def write_case(suite: Suite, rows: int) -> Case:
    """Rotation of queries and keys, and the write of keys and values to scattered places of the cache."""
    heads, positions = suite.heads, 4096
    q_size, kv_size, blocks = heads.query * heads.dim, heads.kv * heads.dim, -(-rows // heads.block_size) + 1

    def make(device: torch.device, draws: torch.Generator) -> Inputs:
        turns = torch.empty((positions, 1, heads.dim // 2), device=device).uniform_(0, 6.3, generator=draws)
        cache = (blocks, heads.block_size, heads.kv, heads.dim)
        return {
            "qkv": _normal((rows, q_size + 2 * kv_size), suite.dtype, device, draws),
            "cos": torch.cat((turns.cos(), turns.cos()), -1).to(suite.dtype),
            "sin": torch.cat((-turns.sin(), turns.sin()), -1).to(suite.dtype),
            "positions": torch.randint(positions, (rows,), generator=draws, device=device),
            "slots": torch.randperm(blocks * heads.block_size, generator=draws, device=device)[:rows],
            "keys": _normal(cache, suite.dtype, device, draws),
            "values": _normal(cache, suite.dtype, device, draws),
        }

    def plain(x: Inputs) -> Tensor:
        projected = x["qkv"].view(rows, -1, heads.dim)
        q, k, v = projected.split((heads.query, heads.kv, heads.kv), dim=1)
        cos, sin = (x[name].index_select(0, x["positions"]) for name in ("cos", "sin"))
        write_kv(x["keys"], apply_rope(k, cos, sin), x["slots"])
        write_kv(x["values"], v, x["slots"])
        return apply_rope(q, cos, sin)

    def outcome(x: Inputs, q: Tensor) -> Tensor:
        return torch.cat((q.flatten(), x["keys"].flatten(), x["values"].flatten()))

    moved = rows * (2 * q_size + 4 * kv_size + 2 * heads.dim)  # in and out, and the table's two rows of each token
    return Case(
        operation="RoPE + cache write",
        size=f"{rows} x {q_size + 2 * kv_size}",
        dtype=suite.dtype,
        memory_bytes=moved * suite.dtype.itemsize,
        flops=3 * rows * (q_size + kv_size),
        make=make,
        ours=lambda x: rope_and_write(
            x["qkv"], RopeTable(x["cos"], x["sin"]), x["positions"], x["slots"], PagedKV(x["keys"], x["values"])
        ),
        reference=lambda x: _in_float32(x, plain, outcome),
        rivals={"torch": plain},
        outcome=outcome,
    )


def silu_case(suite: Suite, rows: int) -> Case:
    """SiLU of the gate times the up half: two halves read, one written."""
    n = suite.intermediate

    def plain(x: Inputs) -> Tensor:
        gate, up = x["gate_up"].chunk(2, dim=-1)
        return F.silu(gate) * up

    return Case(
        operation="SiLU x up",
        size=f"{rows} x {n}",
        dtype=suite.dtype,
        memory_bytes=3 * rows * n * suite.dtype.itemsize,
        flops=5 * rows * n,
        make=lambda device, draws: {"gate_up": _normal((rows, 2 * n), suite.dtype, device, draws)},
        ours=lambda x: silu_mul(x["gate_up"]),
        reference=lambda x: plain(_widened(x)),
        rivals={"torch": plain, **rivals.silu()},
    )


def sample_case(suite: Suite, rows: int, how: str) -> Case:
    """A token a row, by one of `SAMPLING`: the logits are read once. Its outcome is the drawn tokens' logits."""
    n = suite.vocabulary

    def make(device: torch.device, draws: torch.Generator) -> Inputs:
        columns = {
            name: torch.full((rows,), value, device=device, dtype=torch.int32 if name == "top_k" else torch.float32)
            for name, value in zip(Filters._fields, SAMPLING[how], strict=True)
        }
        return {
            "logits": _normal((rows, n), suite.dtype, device, draws) * _LOGIT_SCALE,
            "seeds": torch.randint(1 << 62, (rows,), generator=draws, device=device),
            "positions": torch.randint(4096, (rows,), generator=draws, device=device, dtype=torch.int32),
            **columns,
        }

    def draw(x: Inputs) -> Tensor:
        return sample(x["logits"], Filters(*(x[name] for name in Filters._fields)), x["seeds"], x["positions"])

    def outcome(x: Inputs, tokens: Tensor) -> Tensor:
        return x["logits"].gather(1, tokens.long()[:, None])

    def reference(x: Inputs) -> Tensor:
        tokens = draw({name: value.cpu() for name, value in x.items()})
        return outcome(x, tokens.to(x["logits"].device))

    return Case(
        operation=f"sampling, {how}",
        size=f"{rows} x {n}",
        dtype=suite.dtype,
        memory_bytes=rows * n * suite.dtype.itemsize,
        flops=rows * n,
        make=make,
        ours=draw,
        reference=reference,
        rivals={"torch": lambda x: x["logits"].argmax(-1)} if how == "greedy" else {},
        outcome=outcome,
    )


def _paged(
    suite: Suite, queries: list[int], contexts: list[int], device: torch.device, draws: torch.Generator
) -> Inputs:
    """Query tokens of several sequences after `contexts` cached ones, their own keys and values in the cache already.

    Every sequence has one shape here, so the dense copy of its keys and values is one tensor; block 0 is nobody's.
    """
    heads, size, count = suite.heads, suite.heads.block_size, len(queries)
    length = contexts[0] + queries[0]
    blocks = -(-length // size)
    order = torch.randperm(count * blocks, generator=draws, device=device) + 1
    tables = order.view(count, blocks)
    cache = (1 + count * blocks, size, heads.kv, heads.dim)
    k_cache, v_cache = (_normal(cache, suite.dtype, device, draws) for _ in range(2))
    mask = {}
    if 1 < queries[0] < length:  # elsewhere the mask is plain causal, or none
        places = torch.arange(length, device=device)
        mask = {"mask": places <= places[contexts[0] :, None]}
    starts = torch.arange(count + 1, dtype=torch.int32, device=device) * queries[0]
    cached = torch.tensor(contexts, dtype=torch.int32, device=device)
    return {
        "q": _normal((sum(queries), heads.query, heads.dim), suite.dtype, device, draws),
        "k_cache": k_cache,
        "v_cache": v_cache,
        "tables": tables.to(torch.int32),
        "starts": starts,
        "contexts": cached,
        "ends": cached + queries[0],
        **mask,
        **{f"dense_{name}": _gathered(c, tables, length) for name, c in (("k", k_cache), ("v", v_cache))},
    }


def _gathered(cache: Tensor, tables: Tensor, length: int) -> Tensor:
    """The same keys or values as one block a sequence: [sequences, kv_heads, length, dim], contiguous."""
    count = len(tables)
    return cache[tables.flatten()].view(count, -1, *cache.shape[2:])[:, :length].transpose(1, 2).contiguous()


def _dense_attention(x: Inputs, heads: Heads) -> Tensor:
    """torch's attention on the dense copies: causal, the queries being the last tokens of each sequence."""
    k, v = x["dense_k"], x["dense_v"]
    q = x["q"].view(len(k), -1, heads.query, heads.dim).transpose(1, 2)
    is_causal = q.shape[2] == k.shape[2] > 1
    out = F.scaled_dot_product_attention(q, k, v, x.get("mask"), is_causal=is_causal, enable_gqa=True)
    return out.transpose(1, 2).reshape(x["q"].shape)


def _in_float32(x: Inputs, do: Do, outcome: Callable[[Inputs, Tensor], Tensor]) -> Tensor:
    """What an operation that changes its inputs should have done, computed on copies of them."""
    wide = _widened(x)
    return outcome(wide, do(wide))


def _widened(x: Inputs) -> Inputs:
    """Copies of the tensors, floats as float32."""
    tensors = {name: value for name, value in x.items() if isinstance(value, Tensor)}
    return {name: value.to(_wide(value), copy=True) for name, value in tensors.items()}


def _wide(value: Tensor) -> torch.dtype:
    return torch.float32 if value.is_floating_point() else value.dtype


def _normal(size: tuple[int, ...], dtype: torch.dtype, device: torch.device, draws: torch.Generator) -> Tensor:
    return torch.empty(size, dtype=dtype, device=device).normal_(generator=draws)
