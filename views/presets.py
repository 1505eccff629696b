"""Workloads to start from: lengths, targets and the longest request, each with where its figures come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """Changes to the default scenario, by dotted place."""

    source: str
    changes: Mapping[str, Any]


DEFAULT: Mapping[str, Any] = {
    "name": "headroom",
    "model": "llama-3.1-8b",
    "hardware": {"accelerator": "H100"},
    "workload": {
        "request_rate": 20.0,
        "prompt_tokens": "lognormal:1155:0.96:14050",
        "output_tokens": "lognormal:211:0.77:1000",
    },
    "engine": {"max_model_len": 16384},
    "slo": {"ttft_ms": 500.0, "tpot_ms": 50.0},
}

# Means, spreads and longest lengths of the recordings are those of the published files.
PRESETS: Mapping[str, Preset] = {
    "chat": Preset(
        "lengths of one hour of production conversations (Azure public dataset, 2023, CC-BY-4.0)",
        {},
    ),
    "code completion": Preset(
        "lengths of one hour of production code completion (Azure public dataset, 2023, CC-BY-4.0)",
        {
            "workload.prompt_tokens": "lognormal:2048:0.96:7437",
            "workload.output_tokens": "lognormal:28:2.15:1899",
            "slo.ttft_ms": 300.0,
            "slo.tpot_ms": 30.0,
        },
    ),
    "long documents": Preset(
        "lengths of the Mooncake conversation trace (FAST'25, Apache-2.0), without its shared prefixes",
        {
            "workload.request_rate": 2.0,
            "workload.prompt_tokens": "lognormal:12035:1.31:126195",
            "workload.output_tokens": "lognormal:343:0.73:2000",
            "engine.max_model_len": 131072,
            "slo.ttft_ms": 10_000.0,
        },
    ),
    "reasoning": Preset(
        "assumed: a short question and thousands of thinking tokens; no public recording stands behind it",
        {
            "workload.request_rate": 2.0,
            "workload.prompt_tokens": "lognormal:500:1:5000",
            "workload.output_tokens": "lognormal:4000:0.8:24000",
            "engine.max_model_len": 32768,
            "slo.ttft_ms": 1_000.0,
        },
    ),
}
