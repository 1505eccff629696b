"""What one accelerator of a replica holds: weights, the engine's own needs, and what that leaves for the cache.

Each part is counted from the model and its division; what an engine takes beside them is a prior (`Efficiency`). All
bytes are those of the fullest rank; blocks and sequences count for the replica, because every rank caches its own part
of every token. Data-parallel ranks of one replica cache their own sequences: there the counts are those of one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from roofline.errors import InputError
from roofline.formats import activation_format, bytes_per_element, format_name
from roofline.hardware import Efficiency, HardwareSpec
from roofline.model_parts import Scope
from roofline.model_shape import ModelShape
from roofline.parallelism import ALONE, Parallelism, RankShare

# Sampling holds a row of logits in fp32, its probabilities, a sorted copy and the 64-bit indices of the sort.
SAMPLING_BYTES_PER_LOGIT = 4 + 4 + 8
# The residual stream and the normed copy that the MLP reads, beside the MLP's own output.
LIVE_HIDDEN_STATES = 2


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """How a replica stores a model, and the largest batch it makes room for.

    `scope` says what `weight_dtype` applies to where it is narrower than 16 bits: the matrices of all layers, or the
    routed experts alone. Embedding, output head, norms and routers stay wide, as in published checkpoints.
    """

    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    parallelism: Parallelism = ALONE
    block_size: int = 16  # tokens
    max_batched_tokens: int = 8192  # of one pass
    max_sequences: int = 256  # of one pass
    memory_fraction: float = 1.0  # that the engine may take: vLLM's gpu_memory_utilization
    scope: Scope = "layers"

    def __post_init__(self) -> None:
        """Refuse sizes that mean nothing."""
        for name in ("block_size", "max_batched_tokens", "max_sequences"):
            if getattr(self, name) < 1:
                raise InputError(f"memory layout has {name} = {getattr(self, name)}; it must be at least 1.")
        if not 0 < self.memory_fraction <= 1:
            raise InputError(f"memory fraction is {self.memory_fraction}; it must be above 0 and at most 1.")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes on each accelerator of a replica; they sum to what the engine may take.

    `kv_bytes` is below zero where it is short. `weights` and `others` name their parts; `kv_bytes_per_token` is that of
    all layers together, as long as every window is open.
    """

    memory_bytes: float  # of the accelerator
    memory_fraction: float
    weights: Mapping[str, float] = field(hash=False)
    others: Mapping[str, float] = field(hash=False)
    kv_bytes_per_token: float
    block_size: int
    num_layers: int  # with a cache, on this rank
    num_full_layers: int  # of them, those that keep the whole context
    sliding_window: int | None

    @property
    def weight_bytes(self) -> float:
        """All weights of the rank."""
        return sum(self.weights.values())

    @property
    def other_bytes(self) -> float:
        """Context, activations, graphs and communication buffers."""
        return sum(self.others.values())

    @property
    def unused_bytes(self) -> float:
        """What the engine is told to leave alone."""
        return self.memory_bytes * (1 - self.memory_fraction)

    @property
    def kv_bytes(self) -> float:
        """What is left for the cache."""
        return self.memory_bytes - self.unused_bytes - self.weight_bytes - self.other_bytes

    @property
    def kv_blocks(self) -> int:
        """Whole blocks that fit if every layer keeps every token, the engine's reserved null block among them."""
        return max(0, int(self.kv_bytes // (self.kv_bytes_per_token * self.block_size)))

    @property
    def kv_tokens(self) -> int:
        """Tokens that requests can cache together in all layers: one block is the null block."""
        return max(0, self.kv_blocks - 1) * self.block_size

    @property
    def layer_blocks(self) -> int:
        """Blocks of single layers that requests can have: what windows leave free serves other requests."""
        return max(0, self.kv_blocks - 1) * self.num_layers

    def layer_blocks_of(self, tokens: int) -> int:
        """Blocks of single layers of a sequence of so many tokens: a window reaches into one block more."""
        blocks = -(-max(1, tokens) // self.block_size)
        if self.sliding_window is None:
            return self.num_layers * blocks
        in_window = min(blocks, -(-self.sliding_window // self.block_size) + 1)
        return self.num_full_layers * blocks + (self.num_layers - self.num_full_layers) * in_window

    def max_sequences(self, tokens_per_sequence: int) -> int:
        """Sequences of that many tokens, prompt and answer, that are cached at once, in whole blocks each."""
        return self.layer_blocks // self.layer_blocks_of(tokens_per_sequence)

    def longest_sequence(self, limit: int) -> int:
        """Tokens of the longest single sequence that fits, at most `limit`; 0 where none does."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.max_sequences(middle) else (low, middle - 1)
        return low

    def stack(self) -> dict[str, float]:
        """Parts by name, in the order to be stacked; they sum to `memory_bytes` where the plan fits."""
        parts = {**self.weights, **self.others, "KV cache": max(0.0, self.kv_bytes)}
        return parts | ({"left to others": self.unused_bytes} if self.unused_bytes else {})


def memory_plan(
    shape: ModelShape, hardware: HardwareSpec, efficiency: Efficiency, layout: MemoryLayout | None = None
) -> MemoryPlan:
    """Divide an accelerator's memory, fitting or not; `efficiency` says what the engine takes for itself."""
    layout = layout or MemoryLayout()
    share = RankShare(shape, layout.parallelism)
    return MemoryPlan(
        memory_bytes=hardware.memory_bytes,
        memory_fraction=layout.memory_fraction,
        weights=rank_weights(share, layout.weight_dtype, layout.scope),
        others=_others(share, efficiency, layout),
        kv_bytes_per_token=share.kv_bytes_per_token(layout.kv_dtype),
        block_size=layout.block_size,
        num_layers=share.num_layers,
        num_full_layers=share.num_full_layers,
        sliding_window=shape.sliding_window,
    )


def rank_weights(share: RankShare, weight_dtype: str, scope: Scope = "layers") -> dict[str, float]:
    """Bytes of the weights on one rank, by part; narrow formats leave all but the layers' matrices wide."""
    shape = share.shape
    wide, narrow = bytes_per_element(activation_format(weight_dtype)), bytes_per_element(weight_dtype)
    routers = share.num_moe_layers * shape.router_parameters
    experts = share.num_moe_layers * share.num_experts * shape.expert_parameters // share.parallelism.expert_tensor
    beside_experts = share.layer_linear_parameters - experts - routers
    ends = share.num_parameters - share.layer_linear_parameters - share.vector_parameters
    parts = {
        "routed experts": experts * narrow,
        "attention and MLPs": beside_experts * (wide if scope == "experts" else narrow),
        "embedding and head": ends * wide,
        "norms, biases, routers": (routers + share.vector_parameters) * wide,
    }
    return {name: size for name, size in parts.items() if size}


def checkpoint_bytes(shape: ModelShape, weight_dtype: str, scope: Scope = "layers") -> float:
    """Bytes of a whole model stored in one format, with what stays wide; scales are in the format."""
    return sum(rank_weights(RankShare(shape), weight_dtype, scope).values())


def stored_formats(
    shape: ModelShape, weight_dtype: str | None = None, kv_dtype: str | None = None
) -> tuple[str, Scope, str]:
    """Weight format, its scope and KV format: those asked for, else those of the model's checkpoint, else bf16."""
    own = shape.quantization
    weights = format_name(weight_dtype) if weight_dtype else (own.weight_format if own else "bf16")
    scope: Scope = own.scope if own and own.weight_format == weights else "layers"
    return weights, scope, format_name(kv_dtype) if kv_dtype else ((own and own.kv_format) or "bf16")


def activation_bytes(share: RankShare, layout: MemoryLayout) -> float:
    """The most that one pass holds beside weights and cache: the widest MLP or the sampling, whichever is more.

    They follow one another and reuse the same memory. Experts see each token `experts_per_token` times.
    """
    shape, element = share.shape, bytes_per_element(activation_format(layout.weight_dtype))
    width = 2 * share.intermediate_size if share.num_dense_layers else 0
    if shape.moe:
        routed = shape.moe.experts_per_token * (2 * share.expert_intermediate_size + shape.hidden_size)
        width = max(width, routed + 2 * share.shared_intermediate_size)
    forward = layout.max_batched_tokens * (width + LIVE_HIDDEN_STATES * shape.hidden_size) * element
    # Every rank that samples does so on the whole vocabulary.
    sampling = layout.max_sequences * shape.vocab_size * SAMPLING_BYTES_PER_LOGIT
    return max(forward, sampling)


def _others(share: RankShare, efficiency: Efficiency, layout: MemoryLayout) -> dict[str, float]:
    parts = {
        "activations": activation_bytes(share, layout),
        "context": efficiency.context_bytes,
        "graphs": efficiency.graph_bytes,
        "communication": efficiency.communication_bytes if layout.parallelism.accelerators > 1 else 0.0,
    }
    return {name: size for name, size in parts.items() if size}
