"""Small scenarios that simulate in a fraction of a second: an 8B model on H100s by arithmetic, short answers."""

from typing import Any

from simulator.scenario import Scenario
from simulator.scenario_file import from_mapping, with_changes

SMALL: dict[str, Any] = {
    "name": "small",
    "model": "llama-3.1-8b",
    "hardware": {"accelerator": "H100"},
    "workload": {"request_rate": 40.0, "prompt_tokens": 400, "output_tokens": "uniform:20:60"},
    "slo": {"ttft_ms": 200, "tpot_ms": 30, "percentile": 95},
    "fleet": {"max_replicas": 12},
    "run": {"min_requests": 400, "max_requests": 3000},
}


def small(**changes: Any) -> Scenario:
    """The small scenario; `workload__request_rate=9` changes that setting."""
    return with_changes(from_mapping(SMALL), {name.replace("__", "."): value for name, value in changes.items()})
