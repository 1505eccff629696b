"""A model as a user names it: a catalogue name or Hugging Face id, a folder or config.json, or a GGUF file."""

from pathlib import Path
from typing import Any

from roofline.catalogue_data import read_json_object
from roofline.errors import InputError, ModelError
from roofline.model_shape import ModelShape
from roofline.quantization_config import from_modelopt_file


def load_model_shape(source: str) -> ModelShape:
    """The shape of the model that `source` names.

    An existing path wins over a catalogue name. Raises `ModelError` where nothing of the kind is found or it cannot
    be read.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return _from_gguf(path)
    if path.is_dir():
        path = path / "config.json"
        if not path.is_file():
            raise ModelError(f"folder {source!r} holds no config.json; name a folder of a Hugging Face model.")
    if path.is_file() or path.suffix == ".json":
        return _from_config(path)
    try:
        return ModelShape.from_catalogue(source)
    except ModelError as error:
        raise ModelError(f"{error} And no file or folder has that name.") from error


def _from_config(path: Path) -> ModelShape:
    try:
        config = read_json_object(path)
        beside = path.with_name("hf_quant_config.json")
        if "quantization_config" not in config and beside.is_file():
            config["quantization_config"] = from_modelopt_file(read_json_object(beside))
    except InputError as error:
        raise ModelError(str(error)) from error
    try:
        return ModelShape.from_hf_config(config, name=str(config.get("_name_or_path") or path.resolve().parent.name))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def open_gguf(path: Path) -> Any:
    """The `gguf.GGUFReader` of a file; `ModelError` where there is none, where it is broken, or without the package."""
    if not path.is_file():
        raise ModelError(f"GGUF file {str(path)!r} does not exist; check the path.")
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ModelError(
            f"{path} is a GGUF file, and the package gguf that reads it is missing; pip install 'llm-headroom[engine]'."
        ) from error
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{path} is not a readable GGUF file ({error}); download it again.") from error


def _from_gguf(path: Path) -> ModelShape:
    reader = open_gguf(path)
    # Vocabularies are long lists that take seconds to decode; a shape needs their length alone, and only where the
    # file does not state it.
    metadata = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    if tokens is not None:
        metadata["tokenizer.ggml.tokens"] = range(len(tokens.data))
    return ModelShape.from_gguf(metadata, [tensor.name for tensor in reader.tensors])


def index_bytes(source: str) -> int | None:
    """Bytes of all tensors by the safetensors index of a folder (`metadata.total_size`); None where there is none."""
    index = Path(source).expanduser() / "model.safetensors.index.json"
    if not index.is_file():
        return None
    metadata = read_json_object(index).get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return int(size) if isinstance(size, int | float) and size > 0 else None
