"""How a model is divided among accelerators: what one rank of a tensor-parallel group holds and computes."""

from dataclasses import dataclass

from roofline.errors import InputError
from roofline.formats import bytes_per_element
from roofline.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class TensorSplit:
    """One rank's part under tensor parallelism of `degree`, all ranks being equal.

    Attention heads, the MLP, the embedding and the output head are divided; norms are held by every rank, and so are
    KV heads (with the matrices that make them) once the degree exceeds their number.
    """

    shape: ModelShape
    degree: int = 1

    def __post_init__(self) -> None:
        """Refuse a degree that does not divide the heads and the MLP."""
        if self.degree < 1 or self.shape.num_heads % self.degree or self.shape.intermediate_size % self.degree:
            raise InputError(
                f"tensor parallelism of {self.degree} does not divide {self.shape.name}'s {self.shape.num_heads} heads "
                f"and MLP of {self.shape.intermediate_size}; use one of {', '.join(map(str, degrees(self.shape)))}."
            )

    @property
    def q_size(self) -> int:
        """Query elements of one token on one rank."""
        return self.shape.q_size // self.degree

    @property
    def num_kv_heads(self) -> int:
        """KV heads on one rank, at least one."""
        return -(-self.shape.num_kv_heads // self.degree)

    @property
    def kv_size(self) -> int:
        """Key elements of one token on one rank (as many for the values)."""
        return self.num_kv_heads * self.shape.head_dim

    @property
    def layer_linear_parameters(self) -> int:
        """Matrix weights of the layers on one rank."""
        shape = self.shape
        attention = shape.hidden_size * (2 * self.q_size + 2 * self.kv_size)
        return shape.num_layers * (attention + shape.mlp_parameters // self.degree)

    @property
    def head_parameters(self) -> int:
        """Weights of the output head on one rank; the vocabulary is padded to a multiple of the degree."""
        return -(-self.shape.vocab_size // self.degree) * self.shape.hidden_size

    @property
    def num_parameters(self) -> int:
        """All weights on one rank; norms and biases are counted whole."""
        shape = self.shape
        vectors = shape.num_layers * shape.vector_parameters_per_layer + shape.hidden_size
        return self.layer_linear_parameters + vectors + self.head_parameters * (1 if shape.tie_embeddings else 2)

    def weight_bytes(self, dtype: str) -> float:
        """Bytes of weights on one rank."""
        return self.num_parameters * bytes_per_element(dtype)

    def kv_bytes_per_token(self, kv_dtype: str) -> float:
        """Bytes that one token's keys and values take on one rank."""
        return 2 * self.shape.num_layers * self.kv_size * bytes_per_element(kv_dtype)


def degrees(shape: ModelShape, limit: int = 64) -> list[int]:
    """Tensor-parallel degrees that divide the model, ascending."""
    return [n for n in range(1, limit + 1) if shape.num_heads % n == 0 and shape.intermediate_size % n == 0]
