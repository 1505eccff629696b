"""Typed look-ups in foreign descriptions of a model: each returns the value or raises one clear `ModelError`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from roofline.errors import ModelError

Fields = dict[str, Any]
Part = TypeVar("Part", list[Any], dict[str, Any])
Value = TypeVar("Value")

_ABSURD = 1e18  # no figure of a model comes near; NaN and infinity fail the comparison as well


def part(config: Mapping[str, Any], field: str, kind: type[Part]) -> Part:
    """A list or an object inside a config, empty where the field is absent or null."""
    value = config.get(field)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ModelError(f"model description has {field} = {value!r}; it must be a {kind.__name__}.")
    return value


def optional(read: Callable[[Mapping[str, Any], str], Value], config: Mapping[str, Any], field: str) -> Value | None:
    """What `read` makes of a field, None where it is absent or null."""
    return None if config.get(field) is None else read(config, field)


def integer(config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    """A whole number, `default` where the field is absent or null."""
    value = number(config, field, default)
    if value != int(value):
        raise ModelError(f"model description has {field} = {value}; it must be a whole number.")
    return int(value)


def number(config: Mapping[str, Any], field: str, default: float | None = None) -> float:
    """A finite number, `default` where the field is absent or null."""
    value = config.get(field)
    value = default if value is None else value
    if value is None:
        raise ModelError(f"model description lacks the field {field}; it has {', '.join(sorted(config))}.")
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _ABSURD:
        raise ModelError(f"model description has {field} = {value!r}; it must be one finite number.")
    return value
