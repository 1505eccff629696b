"""The shape of a model: every size that memory, step time and the engine's layers are built from.

A shape is read once, from a Hugging Face config, from GGUF metadata or from the catalogue; no other module asks those
for a field. Today's shapes are dense Llama-style decoders: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from roofline.catalogue_data import shipped_rows
from roofline.errors import ModelError
from roofline.formats import bytes_per_element
from roofline.model_config import RopeScaling, read_gguf_metadata, read_hf_config


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of one dense decoder-only model.

    Per layer: q, k, v and output projections, gate, up and down projections, two RMSNorms; then a final RMSNorm and the
    output head, which is the embedding matrix itself where `tie_embeddings`.
    """

    name: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position: int
    rope_theta: float
    rms_norm_eps: float
    tie_embeddings: bool
    attention_bias: bool = False  # on the q, k and v projections
    qk_norm: bool = False  # RMSNorm over head_dim on q and on k
    attention_output_bias: bool = False  # Llama's attention_bias means this one too, Qwen2's biases do not
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that no such model can have."""
        for field in _POSITIVE_FIELDS:
            value = getattr(self, field)
            if not value > 0:
                raise ModelError(f"model {self.name!r} has {field} = {value}; it must be positive.")
        if self.num_heads % self.num_kv_heads:
            raise ModelError(
                f"model {self.name!r} has {self.num_heads} attention heads on {self.num_kv_heads} KV heads; "
                "the first must be a multiple of the second."
            )

    @classmethod
    def from_hf_config(cls, config: Mapping[str, Any], *, name: str = "") -> Self:
        """Read a Hugging Face `config.json`, parsed.

        `name` defaults to the config's `_name_or_path`, then to its architecture. Raises `ModelError` for an unknown
        architecture or one used in a way that is not modelled (sliding windows).
        """
        fields = read_hf_config(config)
        default = str(config.get("_name_or_path") or fields.pop("architecture"))
        fields.pop("architecture", None)
        return cls(name=name or default, **fields)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], tensor_names: Collection[str], *, name: str = "") -> Self:
        """Read the key-value metadata of a GGUF file as plain Python values.

        `tensor_names` are those of the file: a tied output head, biases and q/k norms show only there. `name` defaults
        to `general.name`. Raises `ModelError` for an unknown architecture or a missing key.
        """
        fields = read_gguf_metadata(metadata, tensor_names)
        return cls(name=name or str(metadata.get("general.name") or metadata["general.architecture"]), **fields)

    @classmethod
    def from_catalogue(cls, name: str) -> Self:
        """The shipped shape of that name or Hugging Face id, upper and lower case alike.

        Raises `ModelError` with the names there are.
        """
        for row in shipped_rows("models"):
            if name.lower() in (row["name"], *(hf_id.lower() for hf_id in row["hf_ids"])):
                fields = {**row["shape"]}
                scaling = fields.pop("rope_scaling", None)
                return cls(name=row["name"], **fields, rope_scaling=RopeScaling(**scaling) if scaling else None)
        raise ModelError(f"model {name!r} is not in the catalogue; it knows {', '.join(catalogue_names())}.")

    @property
    def q_size(self) -> int:
        """Elements of all query heads of one token."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of all key heads of one token (as many for the values)."""
        return self.num_kv_heads * self.head_dim

    @property
    def attention_projection_parameters(self) -> int:
        """Weights of one layer's q, k, v and output matrices."""
        return self.hidden_size * (2 * self.q_size + 2 * self.kv_size)

    @property
    def mlp_parameters(self) -> int:
        """Weights of one layer's gate, up and down matrices."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def vector_parameters_per_layer(self) -> int:
        """Norm weights and biases of one layer: everything in it that is no matrix."""
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        qkv_bias = self.q_size + 2 * self.kv_size if self.attention_bias else 0
        return norms + qkv_bias + (self.hidden_size if self.attention_output_bias else 0)

    @property
    def layer_linear_parameters(self) -> int:
        """Matrix weights that every token is multiplied with in the layers; the output head is apart."""
        return self.num_layers * (self.attention_projection_parameters + self.mlp_parameters)

    @property
    def head_parameters(self) -> int:
        """Weights of the output head, applied to sampled rows only; tied or not, they are read for the logits."""
        return self.vocab_size * self.hidden_size

    @property
    def linear_parameters(self) -> int:
        """Matrix weights that a sampled token is multiplied with: the layers' and the output head's."""
        return self.layer_linear_parameters + self.head_parameters

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding and of the output head, counted once where they are tied."""
        return self.head_parameters * (1 if self.tie_embeddings else 2)

    @property
    def non_embedding_parameters(self) -> int:
        """All weights but the embedding and the output head."""
        return self.num_layers * self.vector_parameters_per_layer + self.layer_linear_parameters + self.hidden_size

    @property
    def num_parameters(self) -> int:
        """Exact number of weights; tied ones count once."""
        return self.non_embedding_parameters + self.embedding_parameters

    def kv_bytes_per_token(self, kv_dtype: str = "bf16") -> int:
        """Bytes that one token's keys and values take over all layers."""
        return int(2 * self.num_layers * self.kv_size * bytes_per_element(kv_dtype))

    def weight_bytes(self, dtype: str = "bf16") -> int:
        """Bytes of all weights in one format; group scales and layers kept in a wider format come on top."""
        return int(self.num_parameters * bytes_per_element(dtype))


_POSITIVE_FIELDS = (
    "num_layers",
    "hidden_size",
    "intermediate_size",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "vocab_size",
    "max_position",
    "rope_theta",
    "rms_norm_eps",
)


def catalogue_names() -> list[str]:
    """Names of the shipped models."""
    return [row["name"] for row in shipped_rows("models")]
