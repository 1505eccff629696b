"""What a trace's `meta.json` says, read once at the edge; foreign traces say less and spell some of it shorter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from engine.core.config import EngineConfig
from engine.core.trace import Trace
from roofline.errors import TraceError

Meta = Mapping[str, Any]
ENGINE_NAME = "headroom"  # as this project's engine signs its traces
_SETTINGS = {
    name: (int, float) if kind is float else (str if name == "policy" else kind,)
    for name, kind in get_type_hints(EngineConfig).items()
}


@dataclass(frozen=True, slots=True)
class ClientLink:
    """What lies between the client and the engine: a cap on requests in flight (None: open loop), delays in seconds."""

    max_concurrency: int | None = None
    to_engine_s: float = 0.0
    to_client_s: float = 0.0


def model_name(trace: Trace) -> str:
    """The model's name; TraceError if meta.json does not give it."""
    return _name(trace, "model")


def hardware_name(trace: Trace) -> str:
    """The accelerator's name; TraceError if meta.json does not give it."""
    return _name(trace, "hardware")


def hardware_count(trace: Trace) -> int:
    """Accelerators the engine ran on; the parallelism degree where the count is not given."""
    hardware = trace.meta.get("hardware")
    count = hardware.get("count") if isinstance(hardware, Mapping) else None
    return _positive(trace, "hardware.count", count if count is not None else tensor_parallel(trace))


def tensor_parallel(trace: Trace) -> int:
    """The tensor parallelism degree; 1 where meta.json is silent."""
    return _positive(trace, "tensor_parallel", trace.meta.get("tensor_parallel", 1))


def engine_settings(trace: Trace) -> dict[str, Any]:
    """Whatever is known of the engine's configuration, under `EngineConfig`'s names; unknown names are left aside."""
    settings = trace.meta.get("engine_config") or {}
    if not isinstance(settings, Mapping):
        raise TraceError(f"{trace.source}/meta.json: engine_config is {settings!r}; it must be an object of settings.")
    known = {name: value for name, value in settings.items() if name in _SETTINGS and value is not None}
    for name, value in known.items():
        kind = _SETTINGS[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
            told = " or ".join(one.__name__ for one in kind)
            raise TraceError(f"{trace.source}/meta.json: engine_config.{name} is {value!r}; it must be of type {told}.")
    return known


def client_link(trace: Trace) -> ClientLink:
    """The client as meta.json describes it; an open loop without delays where it is silent."""
    client = trace.meta.get("client") or {}
    if not isinstance(client, Mapping):
        raise TraceError(f"{trace.source}/meta.json: client is {client!r}; it must be an object.")
    known = {
        name: client[name] for name in ("max_concurrency", "to_engine_s", "to_client_s") if client.get(name) is not None
    }
    link = ClientLink(**known)
    for name in ("to_engine_s", "to_client_s"):
        delay_s = getattr(link, name)
        if not isinstance(delay_s, int | float) or isinstance(delay_s, bool) or not 0 <= delay_s < math.inf:
            raise TraceError(f"{trace.source}/meta.json: client.{name} is {delay_s!r}; it must be seconds, at least 0.")
    if link.max_concurrency is not None:
        _positive(trace, "client.max_concurrency", link.max_concurrency)
    return link


def _name(trace: Trace, key: str) -> str:
    value = trace.meta.get(key)
    name = value.get("name") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or not name:
        raise TraceError(f'{trace.source}/meta.json gives no {key} name; add "{key}": {{"name": ...}}.')
    return name


def _positive(trace: Trace, key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TraceError(f"{trace.source}/meta.json: {key} is {value!r}; it must be a whole number of at least 1.")
    return value
