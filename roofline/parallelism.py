"""How a model is divided among accelerators: what one rank of a replica holds, caches and computes.

Tensor parallelism divides heads and MLPs, pipeline parallelism layers, expert parallelism whole experts. Data
parallelism inside a replica means ranks that attend to their own sequences and share one set of experts; replicas that
share nothing are a fleet's business.
"""

from dataclasses import dataclass

from roofline.errors import InputError
from roofline.formats import bytes_per_element
from roofline.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Degrees of one replica; `expert` ranks hold different experts, and 1 divides each expert like an MLP."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1

    def __post_init__(self) -> None:
        """Refuse degrees below one, and expert ranks that the others do not make up."""
        for name in ("tensor", "pipeline", "data", "expert"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} parallelism of {getattr(self, name)} has no meaning; it must be at least 1.")
        if (self.tensor * self.data) % self.expert:
            raise InputError(
                f"expert parallelism of {self.expert} does not divide the {self.tensor * self.data} ranks of tensor "
                f"parallelism {self.tensor} x data parallelism {self.data}; they share one set of experts."
            )

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return self.tensor * self.pipeline * self.data

    @property
    def expert_group(self) -> int:
        """Ranks that share one set of experts in a stage."""
        return self.tensor * self.data if self.expert > 1 else self.tensor

    @property
    def expert_tensor(self) -> int:
        """Ranks among which each single expert is divided."""
        return self.expert_group // self.expert

    @property
    def text(self) -> str:
        """As people write it: TP8, or PP2 x TP8; nothing for one accelerator."""
        degrees = {"PP": self.pipeline, "DP": self.data, "TP": self.tensor, "EP": self.expert}
        return " x ".join(f"{name}{degree}" for name, degree in degrees.items() if degree > 1)


ALONE = Parallelism()


@dataclass(frozen=True, slots=True)
class RankShare:
    """What the fullest rank holds: that of a stage with the most layers and with the output head.

    Attention heads, MLPs, the embedding and the output head are divided by the tensor degree; norms, routers and the
    compression of latent attention are held by every rank, and so are KV heads (with the matrices that make them) once
    the degree exceeds their number. The latent cache of MLA is never divided. Raises `InputError` where a degree does
    not divide the model.
    """

    shape: ModelShape
    parallelism: Parallelism = ALONE

    def __post_init__(self) -> None:
        """Refuse degrees that do not divide what they have to."""
        _check(self.shape, self.parallelism)

    @property
    def num_layers(self) -> int:
        """Layers of the fullest stage."""
        return -(-self.shape.num_layers // self.parallelism.pipeline)

    @property
    def num_moe_layers(self) -> int:
        """Layers of that stage with experts; the dense ones stand in other stages as far as they can."""
        return min(self.shape.num_moe_layers, self.num_layers)

    @property
    def num_dense_layers(self) -> int:
        """Layers of that stage with a plain MLP."""
        return self.num_layers - self.num_moe_layers

    @property
    def num_full_layers(self) -> int:
        """Layers of that stage that see the whole context."""
        return -(-(self.shape.num_layers - self.shape.sliding_layers) // self.parallelism.pipeline)

    @property
    def num_heads(self) -> int:
        """Query heads on one rank."""
        return self.shape.num_heads // self.parallelism.tensor

    @property
    def q_size(self) -> int:
        """Query elements of one token on one rank."""
        return self.num_heads * self.shape.head_dim

    @property
    def num_kv_heads(self) -> int:
        """KV heads on one rank, at least one; the latent vector counts as one."""
        return 1 if self.shape.mla else -(-self.shape.num_kv_heads // self.parallelism.tensor)

    @property
    def kv_size(self) -> int:
        """Key elements of one token on one rank (as many for the values); of latent attention, before compression."""
        return self.num_kv_heads * self.shape.head_dim

    @property
    def kv_elements(self) -> int:
        """Elements that one token leaves in the cache of one layer on one rank."""
        return self.shape.mla.cache_elements if self.shape.mla else 2 * self.kv_size

    @property
    def intermediate_size(self) -> int:
        """Width of a dense layer's MLP on one rank."""
        return self.shape.intermediate_size // self.parallelism.tensor

    @property
    def num_experts(self) -> int:
        """Routed experts on one rank, of one layer; 0 without experts."""
        return self.shape.moe.num_experts // self.parallelism.expert if self.shape.moe else 0

    @property
    def expert_intermediate_size(self) -> int:
        """Width of one routed expert on one rank; 0 without experts."""
        return self.shape.moe.intermediate_size // self.parallelism.expert_tensor if self.shape.moe else 0

    @property
    def shared_intermediate_size(self) -> int:
        """Width of the shared expert on one rank; 0 without one."""
        return self.shape.moe.shared_intermediate_size // self.parallelism.tensor if self.shape.moe else 0

    @property
    def vocab_size(self) -> int:
        """Rows of the output head on one rank; the vocabulary is padded to a multiple of the degree."""
        return -(-self.shape.vocab_size // self.parallelism.tensor)

    @property
    def head_parameters(self) -> int:
        """Weights of the output head on one rank."""
        return self.vocab_size * self.shape.hidden_size

    @property
    def attention_parameters(self) -> int:
        """Weights of one layer's attention matrices on one rank."""
        shape = self.shape
        if not shape.mla:
            return shape.hidden_size * (2 * self.q_size + 2 * self.kv_size)
        compress = shape.hidden_size * (shape.mla.cache_elements + (shape.mla.q_lora_rank or 0))
        whole = shape.mla.matrix_parameters(shape.hidden_size, shape.num_heads)
        return compress + (whole - compress) // self.parallelism.tensor

    @property
    def layer_linear_parameters(self) -> int:
        """Matrix weights of the layers on one rank, its experts included."""
        shape = self.shape
        dense = self.num_dense_layers * shape.mlp_parameters // self.parallelism.tensor
        beside = shape.shared_parameters // self.parallelism.tensor + shape.router_parameters
        experts = self.num_experts * shape.expert_parameters // self.parallelism.expert_tensor
        return self.num_layers * self.attention_parameters + dense + self.num_moe_layers * (beside + experts)

    @property
    def vector_parameters(self) -> int:
        """Norms and biases on one rank, counted whole but for those of the experts."""
        shape = self.shape
        vectors = self.num_layers * shape.vector_parameters_per_layer + shape.hidden_size
        return vectors + self.num_moe_layers * shape.moe_vector_parameters // self.parallelism.expert

    @property
    def num_parameters(self) -> int:
        """All weights on one rank."""
        shape, vectors = self.shape, self.vector_parameters
        # A tied matrix serves both ends, so it is on the first and on the last stage; untied, each end has its own.
        both_ends = not shape.tie_embeddings and self.parallelism.pipeline == 1
        return self.layer_linear_parameters + vectors + self.head_parameters * (2 if both_ends else 1)

    def weight_bytes(self, dtype: str) -> float:
        """Bytes of weights on one rank."""
        return self.num_parameters * bytes_per_element(dtype)

    def kv_bytes_per_token(self, kv_dtype: str) -> float:
        """Bytes that one more token takes on one rank, as long as every window is still open."""
        return self.num_layers * self.kv_elements * bytes_per_element(kv_dtype)

    def kv_bytes(self, context: int, kv_dtype: str) -> float:
        """Bytes of the cache of a sequence of `context` tokens on one rank, without what lies outside the windows."""
        windowed = self.num_layers - self.num_full_layers
        tokens = self.num_full_layers * context + windowed * min(context, self.shape.sliding_window or 0)
        return tokens * self.kv_elements * bytes_per_element(kv_dtype)


def _check(shape: ModelShape, parallelism: Parallelism) -> None:
    tensor = parallelism.tensor
    if not _divides(shape, tensor):
        raise InputError(
            f"tensor parallelism of {tensor} does not divide {shape.name}'s {shape.num_heads} heads on "
            f"{shape.num_kv_heads} KV heads and MLP of {shape.intermediate_size}; "
            f"use one of {', '.join(map(str, degrees(shape)))}."
        )
    if parallelism.pipeline > shape.num_layers:
        raise InputError(
            f"pipeline parallelism of {parallelism.pipeline} exceeds {shape.name}'s {shape.num_layers} layers."
        )
    if shape.moe is None and (parallelism.expert > 1 or parallelism.data > 1):
        raise InputError(
            f"{shape.name} has no experts to share: expert and data parallelism inside a replica must be 1; "
            "add replicas to the fleet instead."
        )
    if shape.moe and (
        shape.moe.num_experts % parallelism.expert or shape.moe.intermediate_size % parallelism.expert_tensor
    ):
        raise InputError(
            f"expert parallelism of {parallelism.expert} with each expert divided by {parallelism.expert_tensor} does "
            f"not divide {shape.name}'s {shape.moe.num_experts} experts of size {shape.moe.intermediate_size}; "
            "choose an expert degree that divides the first and leaves a divisor of the second."
        )


def _divides(shape: ModelShape, tensor: int) -> bool:
    """Whether heads and MLP can be divided so; KV heads are divided evenly or held whole by equally many ranks each."""
    kv_even = shape.mla is not None or shape.num_kv_heads % tensor == 0 or tensor % shape.num_kv_heads == 0
    dense_even = shape.num_dense_layers == 0 or shape.intermediate_size % tensor == 0
    return tensor >= 1 and shape.num_heads % tensor == 0 and kv_even and dense_even


def degrees(shape: ModelShape, limit: int = 64) -> list[int]:
    """Tensor-parallel degrees that divide the model, ascending."""
    return [n for n in range(1, limit + 1) if _divides(shape, n)]
