"""Parts of a model that only some have: stretched positions, experts, latent attention, a checkpoint's own formats.

`ModelShape` holds them where a model has them; each counts its own weights, given the width of the model around it.
"""

from dataclasses import dataclass, fields
from typing import Literal

from roofline.errors import ModelError
from roofline.formats import format_name

Scope = Literal["layers", "experts"]  # what a narrow format applies to
MATRICES_PER_MLP = 3  # gate, up and down


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the context the model was trained on.

    `kind` is Hugging Face's rope_type (llama3, linear, dynamic, yarn), or `tensor` where a GGUF file carries the
    frequency divisors as the tensor `rope_freqs.weight` (then `factor` is 1 and says nothing).
    """

    kind: str
    factor: float
    original_max_position: int | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None


@dataclass(frozen=True, slots=True)
class MoE:
    """A mixture of experts in place of the MLP of every layer but `num_dense_layers` (usually the first ones).

    A router sends each token to `experts_per_token` of the `num_experts`; the shared expert sees every token. Its size
    is that of all shared experts together. Where the dense layers stand among the others moves no FLOP and no byte.
    """

    num_experts: int
    experts_per_token: int
    intermediate_size: int  # of one routed expert
    shared_intermediate_size: int = 0
    num_dense_layers: int = 0
    shared_gate: bool = False  # a learned weight of the shared expert's answer (Qwen2-MoE)
    router_bias: bool = False
    expert_bias: bool = False  # on gate, up and down (gpt-oss)

    def __post_init__(self) -> None:
        """Refuse numbers that no mixture can have."""
        if not 1 <= self.experts_per_token <= self.num_experts or self.intermediate_size < 1:
            raise ModelError(
                f"mixture of {self.num_experts} experts of size {self.intermediate_size} sends a token to "
                f"{self.experts_per_token}; it must be at least one and at most all, and the size positive."
            )
        if self.shared_intermediate_size < 0 or self.num_dense_layers < 0:
            raise ModelError("mixture of experts has a negative shared size or number of dense layers.")

    def expert_parameters(self, hidden_size: int) -> int:
        """Matrix weights of one routed expert."""
        return MATRICES_PER_MLP * hidden_size * self.intermediate_size

    def shared_parameters(self, hidden_size: int) -> int:
        """Matrix weights of a layer's shared expert and of the gate on it."""
        gate = hidden_size if self.shared_gate else 0
        return MATRICES_PER_MLP * hidden_size * self.shared_intermediate_size + gate

    def router_parameters(self, hidden_size: int) -> int:
        """Matrix weights of a layer's router."""
        return hidden_size * self.num_experts

    def expert_vector_parameters(self, hidden_size: int) -> int:
        """Biases of one routed expert."""
        return 2 * self.intermediate_size + hidden_size if self.expert_bias else 0


@dataclass(frozen=True, slots=True)
class MLA:
    """Multi-head latent attention (DeepSeek): the cache holds one compressed vector and one rotary key a token.

    Without `q_lora_rank` queries are projected directly. The cache is replicated, not divided, under tensor
    parallelism, because every head reads the whole of it.
    """

    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that are not positive."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise ModelError(f"latent attention has {field.name} = {value}; it must be positive.")

    @property
    def qk_head_dim(self) -> int:
        """Elements of one query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_elements(self) -> int:
        """Elements that one token leaves in the cache of one layer."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    def matrix_parameters(self, hidden_size: int, num_heads: int) -> int:
        """Weights of one layer's query, compression, expansion and output matrices."""
        q_size = num_heads * self.qk_head_dim
        query = hidden_size * q_size if self.q_lora_rank is None else self.q_lora_rank * (hidden_size + q_size)
        expand = self.kv_lora_rank * num_heads * (self.qk_nope_head_dim + self.v_head_dim)
        return query + hidden_size * self.cache_elements + expand + num_heads * self.v_head_dim * hidden_size

    @property
    def vector_parameters(self) -> int:
        """Weights of the norms on the compressed vectors of one layer."""
        return self.kv_lora_rank + (self.q_lora_rank or 0)


@dataclass(frozen=True, slots=True)
class Quantization:
    """The number formats that a checkpoint is stored in where they are not one wide format throughout.

    Embedding, output head, norms and routers stay wide in all known checkpoints; `scope` says what is narrow.
    """

    weight_format: str
    scope: Scope = "layers"  # all matrices of the layers, or the routed experts alone
    kv_format: str | None = None  # what the checkpoint asks of the cache

    def __post_init__(self) -> None:
        """Refuse formats that are not known."""
        for name in (self.weight_format, self.kv_format):
            if name is not None and format_name(name) != name:
                raise ModelError(f"number format {name!r} is spelt {format_name(name)!r} here.")
        if self.scope not in ("layers", "experts"):
            raise ModelError(f"quantisation has scope {self.scope!r}; it must be layers or experts.")
