"""Number formats of weights, caches and arithmetic: their names and sizes, in this one place.

Every other module names a format by its short name here (`bf16`) and asks this one for bytes. A format with scales
counts them: `int4-g128` shares a 16-bit scale and a 4-bit zero point among 128 weights, `mxfp4` an 8-bit exponent among
32, `nvfp4` an 8-bit scale among 16, `nf4` a 32-bit scale among 64, which `nf4-double` stores in 8 bits with a 32-bit
scale among 256 of them.
"""

from roofline.errors import InputError

BYTES_PER_ELEMENT: dict[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
    "int4-g128": (4 + 20 / 128) / 8,
    "int4-g64": (4 + 20 / 64) / 8,
    "int4-g32": (4 + 20 / 32) / 8,
    "fp4": 0.5,
    "nvfp4": (4 + 8 / 16) / 8,
    "mxfp4": (4 + 8 / 32) / 8,
    "nf4": (4 + 32 / 64) / 8,
    "nf4-double": (4 + 8 / 64 + 32 / 64 / 256) / 8,
}

_OTHER_SPELLINGS = {
    "float32": "fp32",
    "float": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
}


def format_name(text: str) -> str:
    """The short name of a format however it is spelt (`torch.bfloat16`, `bfloat16`, `BF16` are `bf16`).

    Raises `InputError` for a format that is not known.
    """
    key = text.strip().lower().removeprefix("torch.")
    name = _OTHER_SPELLINGS.get(key, key)
    if name not in BYTES_PER_ELEMENT:
        raise InputError(f"number format {text!r} is not known; use one of {', '.join(BYTES_PER_ELEMENT)}.")
    return name


def bytes_per_element(text: str) -> float:
    """Bytes of one element, with its part of the scales where the format has any.

    Raises `InputError` for a format that is not known.
    """
    return BYTES_PER_ELEMENT[format_name(text)]


def activation_format(weight_dtype: str) -> str:
    """The format between the layers: fp32 or fp16 where the weights are, bf16 beside every other."""
    name = format_name(weight_dtype)
    return name if name in ("fp32", "fp16") else "bf16"
