"""A trace as the JSON that `vllm bench serve` writes, and back: the summary most tools of this field read.

Fields and their meaning are vLLM's; latencies are milliseconds in the summary and seconds in the detailed lists. A
result from the simulator adds `simulated: true`.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.core import metrics
from engine.core.metrics import FloatArray, Slo, none_if_nan
from engine.core.trace import Trace
from engine.core.trace_schema import checked_requests
from roofline.errors import TraceError

_LATENCIES = {"ttft": metrics.ttft_s, "tpot": metrics.tpot_s, "itl": metrics.itl_s, "e2el": metrics.e2e_s}
_DETAILED = ("input_lens", "output_lens", "ttfts", "itls", "start_times")


def bench_result(trace: Trace, slo: Slo | None = None, detailed: bool = True) -> dict[str, Any]:
    """The result as strict JSON (no NaN): None where a figure is not defined.

    `detailed` adds a list entry a request; one that failed has no itls and a ttft of 0, as vLLM writes it, and says why
    in `errors`.
    """
    result = {**_identity(trace), **_totals(trace.requests, slo)}
    for name, values in _LATENCIES.items():
        result |= _latency_fields(name, values(trace.requests) * 1000)
    return result | (_details(trace.requests) if detailed else {})


def requests_of_bench_result(result: Mapping[str, Any], place: str) -> pd.DataFrame:
    """The requests table of a detailed result; arrivals count from the first start; TraceError names a missing list."""
    missing = [name for name in _DETAILED if name not in result]
    if missing:
        raise TraceError(f"{place} lacks {missing[0]}; save the benchmark with its details (--save-detailed).")
    start = np.asarray(result["start_times"], dtype=np.float64)
    lists = [result[name] for name in _DETAILED]
    if len({len(values) for values in lists}) != 1:
        raise TraceError(f"{place}: {', '.join(_DETAILED)} have different lengths; the file is damaged.")
    start = start - start.min() if start.size else start
    failed = [bool(error) for error in result.get("errors", [""] * start.size)]
    times = [
        np.empty(0) if bad else begin + first + np.concatenate([[0.0], np.cumsum(gaps)])
        for bad, begin, first, gaps in zip(failed, start, result["ttfts"], result["itls"], strict=True)
    ]
    order = np.argsort(start, kind="stable")
    table = pd.DataFrame(
        {
            "request_id": [str(number) for number in range(start.size)],
            "arrival_s": start,
            "prompt_tokens": result["input_lens"],
            "output_tokens": result["output_lens"],
            "first_token_s": [stamps[0] if stamps.size else math.nan for stamps in times],
            "finish_s": [stamps[-1] if stamps.size else math.nan for stamps in times],
            "finish_reason": ["abort" if bad else "length" for bad in failed],
        }
    )
    if all(len(stamps) == count for stamps, count in zip(times, result["output_lens"], strict=True)):
        table["token_times_s"] = pd.Series(times, dtype=object)  # else a stream's chunk held several tokens
    return checked_requests(table.iloc[order], place)


def _identity(trace: Trace) -> dict[str, Any]:
    """Who measured what: from meta.json, None where it is silent."""
    meta = trace.meta
    engine, model, workload = _part(meta, "engine"), _part(meta, "model"), _part(meta, "workload")
    started = meta.get("started_at")
    return {
        "date": datetime.fromisoformat(started).strftime("%Y%m%d-%H%M%S") if started else None,
        "endpoint_type": engine.get("name"),
        "backend": engine.get("name"),
        "model_id": model.get("name"),
        "tokenizer_id": model.get("tokenizer", model.get("name")),
        "num_prompts": len(trace.requests),
        "request_rate": workload.get("request_rate"),
        "burstiness": workload.get("burstiness"),
        "max_concurrency": _part(meta, "client").get("max_concurrency"),
        **({"simulated": True} if meta.get("simulated") else {}),
    }


def _totals(requests: pd.DataFrame, slo: Slo | None) -> dict[str, Any]:
    done = metrics.completed(requests)
    duration_s = metrics.makespan_s(requests)
    total_in = int(requests["prompt_tokens"].to_numpy()[done].sum())
    total_out = int(requests["output_tokens"].to_numpy()[done].sum())
    return {
        "duration": none_if_nan(duration_s),
        "completed": int(done.sum()),
        "failed": int((~done).sum()),
        "total_input_tokens": total_in,
        "total_output_tokens": total_out,
        "request_throughput": none_if_nan(metrics.request_throughput(requests)),
        "request_goodput": None if slo is None else none_if_nan(metrics.goodput(requests, slo)),
        "output_throughput": none_if_nan(metrics.output_throughput(requests)),
        "total_token_throughput": (total_in + total_out) / duration_s if duration_s > 0 else None,
        "max_output_tokens_per_s": _peak_tokens_per_s(requests[done]),
        "max_concurrent_requests": _peak_concurrency(requests[done]),
    }


def _latency_fields(name: str, values_ms: FloatArray) -> dict[str, float | None]:
    """vLLM's seven statistics; its standard deviation is the population's."""
    defined = values_ms[~np.isnan(values_ms)]
    if defined.size == 0:
        return {f"{statistic}_{name}_ms": None for statistic in ("mean", "median", "std", "p50", "p90", "p95", "p99")}
    p50, p90, p95, p99 = (float(value) for value in np.percentile(defined, [50, 90, 95, 99]))
    statistics = {"mean": float(defined.mean()), "median": p50, "std": float(defined.std())}
    percentiles = {"p50": p50, "p90": p90, "p95": p95, "p99": p99}
    return {f"{statistic}_{name}_ms": value for statistic, value in (statistics | percentiles).items()}


def _peak_tokens_per_s(requests: pd.DataFrame) -> float | None:
    """Most output tokens within one of the whole seconds counted from the first sending."""
    if "token_times_s" not in requests or requests.empty:
        return None
    times = np.concatenate([np.empty(0), *requests["token_times_s"]])
    return float(np.bincount(_second(times, requests)).max())


def _peak_concurrency(requests: pd.DataFrame) -> int | None:
    """Most requests that were in flight at some time within one whole second; vLLM's figure, above the true peak."""
    if requests.empty:
        return None
    first = _second(metrics.sent_s(requests), requests)
    last = _second(requests["finish_s"].to_numpy(dtype=np.float64), requests)
    change = np.bincount(first, minlength=int(last.max()) + 2) - np.bincount(last + 1, minlength=int(last.max()) + 2)
    return int(np.cumsum(change).max())


def _second(times_s: FloatArray, requests: pd.DataFrame) -> NDArray[np.int64]:
    seconds: NDArray[np.int64] = np.floor(times_s - metrics.sent_s(requests).min()).astype(np.int64)
    return seconds


def _details(requests: pd.DataFrame) -> dict[str, Any]:
    done, ttft = metrics.completed(requests), metrics.ttft_s(requests)
    reasons = requests.get("finish_reason", pd.Series(["not finished"] * len(requests)))
    times = requests["token_times_s"] if "token_times_s" in requests else [np.empty(0)] * len(requests)
    return {
        "input_lens": requests["prompt_tokens"].tolist(),
        "output_lens": np.where(done, requests["output_tokens"], 0).tolist(),
        "ttfts": np.where(done & ~np.isnan(ttft), ttft, 0.0).tolist(),
        "itls": [np.diff(of_one).tolist() if good else [] for good, of_one in zip(done, times, strict=True)],
        "start_times": metrics.sent_s(requests).tolist(),
        "errors": ["" if good else f"ended by {reason}" for good, reason in zip(done, reasons, strict=True)],
    }


def _part(meta: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of meta.json; a bare string there is a name."""
    value = meta.get(name) or {}
    return {"name": value} if isinstance(value, str) else value
