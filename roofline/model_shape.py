"""The shape of a model: every size that memory, step time and the engine's layers are built from.

A shape is read once, from a Hugging Face config, from GGUF metadata or from the catalogue; no other module asks those
for a field. Shapes are decoders with RMSNorm, rotary positions and gated MLPs; attention is grouped-query or latent,
over the whole context or a window in some layers; MLPs are dense or mixtures of experts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from roofline.catalogue_data import shipped_rows
from roofline.errors import ModelError
from roofline.formats import bytes_per_element
from roofline.gguf_config import read_gguf_metadata
from roofline.model_config import read_hf_config
from roofline.model_parts import MATRICES_PER_MLP, MLA, MoE, Quantization, RopeScaling


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of one decoder-only model.

    Per layer: q, k, v and output projections, gate, up and down projections, two RMSNorms; then a final RMSNorm and the
    output head, which is the embedding matrix itself where `tie_embeddings`. `moe` replaces the MLP of most layers,
    `mla` the q, k and v projections (then `head_dim` is that of queries and keys). `sliding_layers` of the layers see
    the last `sliding_window` tokens only.
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
    sliding_window: int | None = None  # tokens, the newest included
    sliding_layers: int = 0
    moe: MoE | None = None
    mla: MLA | None = None
    post_norms: bool = False  # RMSNorm after attention and after the MLP as well (Gemma 2 and 3)
    attention_sinks: bool = False  # one learned logit a query head (gpt-oss)
    activation: str = "silu"  # of the gate
    rotary_fraction: float = 1.0  # of head_dim that is rotated
    quantization: Quantization | None = None  # of the checkpoint, None where it is of one wide format

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
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuse windows, experts and latent sizes that contradict the rest."""
        windowed = self.sliding_window is not None
        if windowed != bool(self.sliding_layers) or (windowed and not self.sliding_window > 0):  # type: ignore[operator]
            raise ModelError(
                f"model {self.name!r} has {self.sliding_layers} layers with a window of {self.sliding_window} tokens; "
                "both must be positive, or there is no window."
            )
        if not 0 <= self.sliding_layers <= self.num_layers:
            raise ModelError(f"model {self.name!r} has {self.sliding_layers} sliding layers of {self.num_layers}.")
        if self.moe and self.moe.num_dense_layers >= self.num_layers:
            raise ModelError(f"model {self.name!r} has {self.moe.num_dense_layers} dense layers of {self.num_layers}.")
        if self.quantization and self.quantization.scope == "experts" and not self.moe:
            raise ModelError(f"model {self.name!r} has quantised experts, and no experts.")
        if self.mla and self.head_dim != self.mla.qk_head_dim:
            raise ModelError(
                f"model {self.name!r} has head_dim {self.head_dim}, and its latent attention {self.mla.qk_head_dim}."
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
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`: a shape from plain values, its parts being mappings.

        Raises `TypeError` for a field that is missing or unknown, `ModelError` for an impossible value.
        """
        built = {**values}
        for name, part in _PARTS.items():
            if isinstance(built.get(name), Mapping):
                built[name] = part(**built[name])
        return cls(**built)

    @classmethod
    def from_catalogue(cls, name: str) -> Self:
        """The shipped shape of that name or Hugging Face id, upper and lower case alike.

        Raises `ModelError` with the names there are.
        """
        row = _catalogue_row(name)
        if row is None:
            raise ModelError(f"model {name!r} is not in the catalogue; it knows {', '.join(catalogue_names())}.")
        return cls.from_dict({"name": row["name"], **row["shape"]})

    @property
    def num_moe_layers(self) -> int:
        """Layers whose MLP is a mixture of experts."""
        return self.num_layers - self.moe.num_dense_layers if self.moe else 0

    @property
    def num_dense_layers(self) -> int:
        """Layers with a plain MLP."""
        return self.num_layers - self.num_moe_layers

    @property
    def q_size(self) -> int:
        """Elements of all query heads of one token."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Elements of all key heads of one token (as many for the values)."""
        return self.num_kv_heads * self.head_dim

    @property
    def kv_elements(self) -> int:
        """Elements that one token leaves in the cache of one layer: keys and values, or the latent vector."""
        return self.mla.cache_elements if self.mla else 2 * self.kv_size

    @property
    def attention_projection_parameters(self) -> int:
        """Weights of one layer's attention matrices: q, k, v and output, or those of latent attention."""
        if self.mla:
            return self.mla.matrix_parameters(self.hidden_size, self.num_heads)
        return self.hidden_size * (2 * self.q_size + 2 * self.kv_size)

    @property
    def mlp_parameters(self) -> int:
        """Weights of a dense layer's gate, up and down matrices."""
        return MATRICES_PER_MLP * self.hidden_size * self.intermediate_size

    @property
    def expert_parameters(self) -> int:
        """Matrix weights of one routed expert of one layer; 0 without experts."""
        return self.moe.expert_parameters(self.hidden_size) if self.moe else 0

    @property
    def routed_parameters(self) -> int:
        """Matrix weights of all routed experts of all layers."""
        return self.num_moe_layers * self.moe.num_experts * self.expert_parameters if self.moe else 0

    @property
    def active_routed_parameters(self) -> int:
        """Matrix weights of the routed experts that one token is sent to, over all layers."""
        return self.num_moe_layers * self.moe.experts_per_token * self.expert_parameters if self.moe else 0

    @property
    def shared_parameters(self) -> int:
        """Matrix weights of one layer's shared expert; 0 without one."""
        return self.moe.shared_parameters(self.hidden_size) if self.moe else 0

    @property
    def router_parameters(self) -> int:
        """Matrix weights of one layer's router; 0 without experts."""
        return self.moe.router_parameters(self.hidden_size) if self.moe else 0

    @property
    def vector_parameters_per_layer(self) -> int:
        """Norm weights, sinks and biases that every layer has: everything in it that is no matrix, experts apart."""
        norms = (4 if self.post_norms else 2) * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        norms += self.mla.vector_parameters if self.mla else 0
        qkv_bias = self.q_size + 2 * self.kv_size if self.attention_bias else 0
        sinks = self.num_heads if self.attention_sinks else 0
        return norms + sinks + qkv_bias + (self.hidden_size if self.attention_output_bias else 0)

    @property
    def moe_vector_parameters(self) -> int:
        """Biases of one layer's router and routed experts."""
        if not self.moe:
            return 0
        router = self.moe.num_experts if self.moe.router_bias else 0
        return router + self.moe.num_experts * self.moe.expert_vector_parameters(self.hidden_size)

    @property
    def vector_parameters(self) -> int:
        """All weights that are no matrix, the final norm included."""
        layers = self.num_layers * self.vector_parameters_per_layer + self.num_moe_layers * self.moe_vector_parameters
        return layers + self.hidden_size

    @property
    def layer_linear_parameters(self) -> int:
        """Matrix weights of the layers, all experts included; the output head is apart."""
        attention = self.num_layers * self.attention_projection_parameters
        dense = self.num_dense_layers * self.mlp_parameters
        beside_experts = self.num_moe_layers * (self.shared_parameters + self.router_parameters)
        return attention + dense + beside_experts + self.routed_parameters

    @property
    def active_layer_linear_parameters(self) -> int:
        """Matrix weights of the layers that one token is multiplied with."""
        return self.layer_linear_parameters - self.routed_parameters + self.active_routed_parameters

    @property
    def head_parameters(self) -> int:
        """Weights of the output head, applied to sampled rows only; tied or not, they are read for the logits."""
        return self.vocab_size * self.hidden_size

    @property
    def linear_parameters(self) -> int:
        """Matrix weights that a sampled token is multiplied with: the layers' and the output head's."""
        return self.active_layer_linear_parameters + self.head_parameters

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding and of the output head, counted once where they are tied."""
        return self.head_parameters * (1 if self.tie_embeddings else 2)

    @property
    def non_embedding_parameters(self) -> int:
        """All weights but the embedding and the output head."""
        return self.layer_linear_parameters + self.vector_parameters

    @property
    def num_parameters(self) -> int:
        """Exact number of weights; tied ones count once."""
        return self.non_embedding_parameters + self.embedding_parameters

    @property
    def active_parameters(self) -> int:
        """Weights less those of the experts that a token is not sent to: what model cards call active."""
        if not self.moe:
            return self.num_parameters
        idle = self.moe.num_experts - self.moe.experts_per_token
        one = self.expert_parameters + self.moe.expert_vector_parameters(self.hidden_size)
        return self.num_parameters - self.num_moe_layers * idle * one

    def kv_bytes_per_token(self, kv_dtype: str = "bf16") -> int:
        """Bytes that one more token takes over all layers, as long as every window is still open."""
        return int(self.num_layers * self.kv_elements * bytes_per_element(kv_dtype))

    def cached_layer_tokens(self, context: int) -> int:
        """Tokens in the caches of all layers, summed, for a sequence of `context` tokens: windows keep the last."""
        in_window = min(context, self.sliding_window or 0)
        return (self.num_layers - self.sliding_layers) * context + self.sliding_layers * in_window

    def kv_bytes(self, context: int, kv_dtype: str = "bf16") -> int:
        """Bytes of the cache of a sequence of `context` tokens, without what lies outside the windows."""
        return int(self.cached_layer_tokens(context) * self.kv_elements * bytes_per_element(kv_dtype))

    def weight_bytes(self, dtype: str = "bf16") -> int:
        """Bytes of all weights in one format; layers kept in a wider format come on top."""
        return int(self.num_parameters * bytes_per_element(dtype))


_PARTS: dict[str, type] = {"rope_scaling": RopeScaling, "moe": MoE, "mla": MLA, "quantization": Quantization}
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


_CHAT_ENDINGS = ("-instruct", "-it", "-chat", "-instruct-v0.1", "-instruct-v0.3", "-instruct-2407")


def _catalogue_row(name: str) -> dict[str, Any] | None:
    """The catalogue's row of that name or Hugging Face id."""
    rows = shipped_rows("models")
    return next((r for r in rows if name.lower() in (r["name"], *(i.lower() for i in r["hf_ids"]))), None)


def hugging_face_id(name: str) -> str:
    """Where a model of the catalogue is published, its chat variant where there is one; any other name is its own."""
    row = _catalogue_row(name)
    if row is None or name != row["name"]:
        return name
    ids: list[str] = row["hf_ids"]
    return next((i for i in ids if i.lower().endswith(_CHAT_ENDINGS)), ids[0])


def catalogue_names() -> list[str]:
    """Names of the shipped models."""
    return [row["name"] for row in shipped_rows("models")]
