"""What a quantised checkpoint says of itself (`quantization_config`, `hf_quant_config.json`), as a `Quantization`.

A method that is not known is an error: weights counted in the wrong format are wrong by a factor.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from roofline.config_fields import integer, part
from roofline.errors import ModelError
from roofline.formats import BYTES_PER_ELEMENT
from roofline.model_parts import Quantization, Scope

Config = Mapping[str, Any]
_KEPT_FIELDS = ("modules_to_not_convert", "ignore", "exclude_modules")


def read_quantization(config: Config, num_layers: int) -> Quantization | None:
    """The formats of a checkpoint; None for an empty config. Raises `ModelError` for what is not known."""
    if not config:
        return None
    method = str(config.get("quant_method") or ("modelopt" if "quant_algo" in config else "")).lower()
    if method not in _METHODS:
        raise ModelError(
            f"quantization_config has quant_method {config.get('quant_method')!r}, which is not known; known are "
            f"{', '.join(_METHODS)}; it has the fields {', '.join(sorted(config))}."
        )
    return Quantization(_METHODS[method](config), _scope(config, num_layers), _kv_format(config))


def from_modelopt_file(content: Config) -> Config:
    """A `quantization_config` from the content of `hf_quant_config.json`, which stands beside a config.json."""
    inner = part(content, "quantization", dict)
    return {"quant_method": "modelopt", **inner}


def _integers(config: Config, field: str = "bits") -> str:
    bits, group = integer(config, field, 4), integer(config, "group_size", -1)
    if bits == 8:
        return "int8"
    name = "int4" if group < 1 else f"int4-g{group}"
    if bits != 4 or name not in BYTES_PER_ELEMENT:
        raise ModelError(f"quantization_config has {bits}-bit weights in groups of {group}, which is not known.")
    return name


def _compressed_tensors(config: Config) -> str:
    groups = part(config, "config_groups", dict)
    formats = {_of_group(part(dict(group), "weights", dict)) for group in groups.values() if isinstance(group, Mapping)}
    if len(formats) != 1:
        raise ModelError(
            f"quantization_config has config_groups of {len(formats)} weight formats "
            f"({', '.join(sorted(formats)) or 'none'}); exactly one is modelled."
        )
    return formats.pop()


def _of_group(weights: Config) -> str:
    bits = integer(weights, "num_bits")
    if weights.get("type") != "float":
        return _integers(weights, "num_bits")
    if bits == 8:
        return "fp8"
    name = {16: "nvfp4", 32: "mxfp4"}.get(integer(weights, "group_size", 0))
    if bits != 4 or name is None:
        raise ModelError(f"quantization_config has {bits}-bit float weights, which are not known.")
    return name


def _bitsandbytes(config: Config) -> str:
    if config.get("load_in_8bit"):
        return "int8"
    if config.get("bnb_4bit_quant_type", "nf4") not in ("nf4", "fp4"):
        raise ModelError(f"quantization_config has bnb_4bit_quant_type {config['bnb_4bit_quant_type']!r}.")
    return "nf4-double" if config.get("bnb_4bit_use_double_quant") else "nf4"


_MODELOPT = {
    "FP8": "fp8", "FP8_PB_WO": "fp8", "NVFP4": "nvfp4", "MXFP4": "mxfp4", "W4A16_AWQ": "int4-g128",
    "W4A8_AWQ": "int4-g128", "INT8_SQ": "int8", "W8A8_SQ_PER_CHANNEL": "int8",
}  # fmt: skip


def _modelopt(config: Config) -> str:
    algorithm = str(config.get("quant_algo")).upper()
    if algorithm not in _MODELOPT:
        raise ModelError(f"quant_algo {config.get('quant_algo')!r} is not known; known are {', '.join(_MODELOPT)}.")
    return _MODELOPT[algorithm]


_METHODS: dict[str, Callable[[Config], str]] = {
    "fp8": lambda config: "fp8",
    "fbgemm_fp8": lambda config: "fp8",
    "awq": _integers,
    "gptq": _integers,
    "compressed-tensors": _compressed_tensors,
    "mxfp4": lambda config: "mxfp4",
    "modelopt": _modelopt,
    "bitsandbytes": _bitsandbytes,
}


def _scope(config: Config, num_layers: int) -> Scope:
    """Experts alone where the attention of all layers, not of a few, is left as it was."""
    kept = [str(name) for field in _KEPT_FIELDS for name in part(config, field, list)]
    layers = [re.search(r"layers\.(\d+)\.", name) for name in kept if "self_attn" in name]
    every_layer = any(found is None for found in layers) or len({found[1] for found in layers if found}) >= num_layers
    return "experts" if layers and every_layer else "layers"


def _kv_format(config: Config) -> str | None:
    scheme = part(config, "kv_cache_scheme", dict)
    named = str(config.get("kv_cache_quant_algo") or "").upper()
    if named == "FP8" or (scheme and integer(scheme, "num_bits") == 8):
        return "fp8"
    return None
