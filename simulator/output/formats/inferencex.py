"""InferenceX's result row: one run as the leaderboard's tools store it, latencies in seconds, throughput a GPU.

Fields as utils/process_result.py of github.com/SemiAnalysisAI/InferenceX derives them from `vllm bench serve`; `intvty`
(interactivity) is 1 / TPOT, of the same statistic.
"""

from typing import Any

from engine.core.bench_result import bench_result
from engine.core.trace import Trace

STATISTICS = ("mean", "median", "p90", "p99", "std")
LATENCIES = ("ttft", "tpot", "itl", "e2el")


def row(trace: Trace) -> dict[str, Any]:
    """The run as a row; None where meta.json or the trace does not say."""
    meta, result = trace.meta, bench_result(trace, detailed=False)
    gpus = _part(meta, "hardware").get("count") or 1
    parallel = {"tp": meta.get("tensor_parallel", 1), "pp": meta.get("pipeline_parallel", 1)}
    total, output = result["total_token_throughput"], result["output_throughput"]
    count = max(result["completed"], 1)
    found = {
        "hw": _part(meta, "hardware").get("name"),
        "conc": result["max_concurrency"],
        "model": result["model_id"],
        "framework": _part(meta, "engine").get("name"),
        "precision": meta.get("weight_dtype"),
        "isl": round(result["total_input_tokens"] / count),
        "osl": round(result["total_output_tokens"] / count),
        **parallel,
        "ep": meta.get("expert_parallel", 1),
        "tput_per_gpu": None if total is None else total / gpus,
        "output_tput_per_gpu": None if output is None else output / gpus,
    }
    for latency in LATENCIES:
        for statistic in STATISTICS:
            value_ms = result[f"{statistic}_{latency}_ms"]
            found[f"{statistic}_{latency}"] = None if value_ms is None else value_ms / 1e3
    for statistic in STATISTICS:
        tpot_s = found[f"{statistic}_tpot"]
        found[f"{statistic}_intvty"] = 1 / tpot_s if tpot_s else None
    return found | ({"simulated": True} if meta.get("simulated") else {})


def _part(meta: dict[str, Any], name: str) -> dict[str, Any]:
    value = meta.get(name)
    return value if isinstance(value, dict) else {"name": value}
