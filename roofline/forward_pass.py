"""The operators of one forward pass on one rank, from a model's shape, its division and its number formats.

The fullest rank of the fullest pipeline stage: the one that the others wait for.
"""

from dataclasses import dataclass, replace
from typing import Literal

from roofline.formats import activation_format, bytes_per_element
from roofline.memory import stored_formats
from roofline.model_shape import ModelShape
from roofline.operators import Attention, Experts, Linear, gemm, mla_flops_per_pair
from roofline.parallelism import ALONE, Parallelism, RankShare

SCORE_PASSES = 4  # naive attention writes and reads the scores, then the probabilities


@dataclass(frozen=True, slots=True)
class Execution:
    """How an engine runs the operators; the defaults are what good engines do."""

    graphs: bool = True  # CUDA graphs: no kernel waits for the host
    attention: Literal["flash", "naive"] = "flash"  # naive: the scores go through memory
    fused: bool = True  # q, k and v in one product, gate and up in one; norms with the residual, the activation's gate
    kept_tokens: int | None = None  # cached tokens that a sequence keeps (sinks and a recent window, or compression)
    expert_imbalance: float = 1.0  # the busiest expert rank's share over the mean, apart from chance


USUAL = Execution()


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """Operators by what drives their amount: tokens, rows of logits, or pairs of query and key."""

    token_operators: tuple[Linear | Experts, ...]
    row_operators: tuple[Linear, ...]
    attention: tuple[Attention, ...]  # one for each kind of layer
    all_reduces: int  # over the tensor ranks
    all_to_alls: int  # over the expert group
    message_bytes_per_token: float  # of one all-reduce, and of one stage's hand-over
    expert_message_bytes_per_token: float  # of one all-to-all

    @property
    def kernels(self) -> int:
        """Kernels that a pass launches on one rank, communication apart."""
        operators = (*self.token_operators, *self.row_operators)
        return sum(op.calls * op.kernels for op in operators) + sum(op.calls for op in self.attention)


@dataclass(frozen=True, slots=True)
class _Builder:
    """What every operator below needs to know."""

    share: RankShare
    weight_dtype: str
    kv_dtype: str
    execution: Execution

    @property
    def shape(self) -> ModelShape:
        return self.share.shape

    @property
    def activation_bytes(self) -> float:
        return bytes_per_element(activation_format(self.weight_dtype))

    @property
    def wide_dtype(self) -> str:
        """The format of output head and routers, which quantised checkpoints leave wide."""
        return activation_format(self.weight_dtype)

    @property
    def layer_dtype(self) -> str:
        """The format of a layer's matrices, routed experts apart: some checkpoints quantise those alone."""
        _, scope, _ = stored_formats(self.shape, self.weight_dtype)
        return self.wide_dtype if scope == "experts" else self.weight_dtype

    def gemm(self, name: str, calls: int, k: int, n: int, parts: int = 1) -> Linear:
        """A matrix product; `parts` separate ones where nothing is fused, each reading the input again."""
        dtype = self.wide_dtype if name in ("logits", "router") else self.layer_dtype
        whole = gemm(name, calls, k, n, (bytes_per_element(dtype), self.activation_bytes), dtype)
        if self.execution.fused or parts == 1:
            return whole
        again = (parts - 1) * k * self.activation_bytes
        return replace(whole, bytes_per_row=whole.bytes_per_row + again, kernels=parts)

    def elementwise(self, name: str, calls: int, elements: float, unfused: tuple[float, int] = (0, 1)) -> Linear:
        """So many elements read or written a row; `unfused` says elements more, and kernels, where nothing is fused."""
        more, kernels = (0.0, 1) if self.execution.fused else unfused
        return Linear(name, calls, 0.0, (elements + more) * self.activation_bytes, kernels=kernels)


def forward_pass(
    shape: ModelShape,
    weight_dtype: str = "bf16",
    kv_dtype: str = "bf16",
    parallelism: Parallelism = ALONE,
    execution: Execution = USUAL,
) -> ForwardPass:
    """Every operator of a pass on the fullest rank; raises `InputError` where a degree does not divide the model."""
    share, split = RankShare(shape, parallelism), parallelism
    build = _Builder(share, weight_dtype, kv_dtype, execution)
    exchanged = share.num_moe_layers if split.expert > 1 and split.data > 1 else 0
    chosen = shape.moe.experts_per_token if shape.moe else 0
    return ForwardPass(
        token_operators=(*_around_layers(build), *_attention_matrices(build), *_mlp(build), *_experts(build)),
        row_operators=_head(build),
        attention=_attention(build),
        all_reduces=2 * share.num_layers - exchanged if split.tensor > 1 else 0,
        all_to_alls=2 * exchanged,  # tokens to their experts, and back
        message_bytes_per_token=shape.hidden_size * build.activation_bytes,
        expert_message_bytes_per_token=chosen * shape.hidden_size * build.activation_bytes / split.tensor,
    )


def _around_layers(build: _Builder) -> tuple[Linear, ...]:
    """Embedding and norms: a fused norm reads input and residual and writes both."""
    shape, layers = build.shape, build.share.num_layers
    norms = (4 if shape.post_norms else 2) * layers + 1
    return (
        build.elementwise("embedding", 1, 2 * shape.hidden_size),
        build.elementwise("norms", norms, 4 * shape.hidden_size, unfused=(shape.hidden_size, 2)),
    )


def _attention_matrices(build: _Builder) -> tuple[Linear, ...]:
    share, shape, layers = build.share, build.shape, build.share.num_layers
    cache = Linear(
        "cache write", layers, 0.0,
        share.kv_elements * (build.activation_bytes + bytes_per_element(build.kv_dtype)),
    )  # fmt: skip
    if shape.mla is None:
        rotated = (share.q_size + share.kv_size) * 2 * (2 if shape.qk_norm else 1)
        return (
            build.gemm("qkv", layers, shape.hidden_size, share.q_size + 2 * share.kv_size, parts=3),
            build.elementwise("rotary", layers, rotated, unfused=(0, 2)),
            cache,
            build.gemm("attention output", layers, share.q_size, shape.hidden_size),
        )
    mla, heads = shape.mla, share.num_heads
    rank = mla.q_lora_rank
    compressed = mla.cache_elements + (rank or 0)
    return (
        build.gemm("q and kv down", layers, shape.hidden_size, compressed, parts=2 if rank else 1),
        build.gemm("q up", layers, rank or shape.hidden_size, heads * mla.qk_head_dim),
        # Its halves are absorbed into query and answer when decoding: other products, the same FLOPs and weights.
        build.gemm("kv up", layers, mla.kv_lora_rank, heads * (mla.qk_nope_head_dim + mla.v_head_dim)),
        build.elementwise("rotary", layers, 2 * (heads + 1) * mla.qk_rope_head_dim, unfused=(0, 2)),
        cache,
        build.gemm("attention output", layers, heads * mla.v_head_dim, shape.hidden_size),
    )


def _mlp(build: _Builder) -> tuple[Linear, ...]:
    """Plain MLPs, and the shared experts, which every token passes as well."""
    share = build.share
    found: list[Linear] = []
    for prefix, calls, width in (
        ("", share.num_dense_layers, share.intermediate_size),
        ("shared ", share.num_moe_layers, share.shared_intermediate_size),
    ):
        if calls and width:
            found += [
                build.gemm(f"{prefix}gate and up", calls, build.shape.hidden_size, 2 * width, parts=2),
                build.elementwise(f"{prefix}activation", calls, 3 * width, unfused=(2 * width, 2)),
                build.gemm(f"{prefix}down", calls, width, build.shape.hidden_size),
            ]
    return tuple(found)


def _experts(build: _Builder) -> tuple[Linear | Experts, ...]:
    share, moe = build.share, build.shape.moe
    if moe is None:
        return ()
    return (
        build.gemm("router", share.num_moe_layers, build.shape.hidden_size, moe.num_experts),
        Experts(
            "experts", share.num_moe_layers, build.shape.hidden_size, share.expert_intermediate_size,
            moe.num_experts, share.num_experts, moe.experts_per_token,
            bytes_per_element(build.weight_dtype), build.activation_bytes,
            ranks_of_tokens=share.parallelism.data if share.parallelism.expert > 1 else 1,
            imbalance=build.execution.expert_imbalance, dtype=build.weight_dtype,
        ),
    )  # fmt: skip


def _head(build: _Builder) -> tuple[Linear, ...]:
    """Logits and their sampling, which reads and writes them in fp32."""
    rows = build.share.vocab_size
    return (
        build.gemm("logits", 1, build.shape.hidden_size, rows),
        Linear("sampling", 1, 0.0, 2 * rows * bytes_per_element("fp32")),
    )


def _attention(build: _Builder) -> tuple[Attention, ...]:
    """One operator for the layers that see everything, one for those with a window."""
    share, shape, kept = build.share, build.shape, build.execution.kept_tokens
    decode = prefill = 4.0 * share.q_size  # q·k and p·v, a multiply and an add each
    expanded, answer = 0.0, share.q_size
    if shape.mla:
        decode, prefill = mla_flops_per_pair(shape.mla, share.num_heads)
        answer = share.num_heads * shape.mla.v_head_dim
        expanded = 2.0 * shape.mla.kv_lora_rank * share.num_heads * (shape.mla.qk_nope_head_dim + shape.mla.v_head_dim)
    full = Attention(
        calls=share.num_full_layers,
        num_heads=share.num_heads,
        num_kv_heads=share.num_kv_heads,
        decode_flops_per_pair=decode,
        prefill_flops_per_pair=prefill,
        kv_bytes_per_token=share.kv_elements * bytes_per_element(build.kv_dtype),
        query_bytes_per_token=(share.q_size + answer) * build.activation_bytes,
        window=kept,
        flops_per_expanded=expanded,
        score_bytes_per_pair=_score_bytes(build),
    )
    windowed = share.num_layers - share.num_full_layers
    if not windowed or shape.sliding_window is None:
        return (full,)
    window = shape.sliding_window if kept is None else min(kept, shape.sliding_window)
    sliding = replace(full, calls=windowed, window=window)
    return (full, sliding) if full.calls else (sliding,)


def _score_bytes(build: _Builder) -> float:
    if build.execution.attention == "flash":
        return 0.0
    return SCORE_PASSES * build.share.num_heads * build.activation_bytes
