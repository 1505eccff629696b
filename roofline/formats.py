"""Number formats of weights, caches and arithmetic: their names and sizes, in this one place.

Every other module names a format by its short name here (`bf16`) and asks this one for bytes.
"""

from roofline.errors import InputError

BYTES_PER_ELEMENT: dict[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
    "fp4": 0.5,
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
    """Bytes of one element; scales of grouped quantisation are not in it.

    Raises `InputError` for a format that is not known.
    """
    return BYTES_PER_ELEMENT[format_name(text)]
