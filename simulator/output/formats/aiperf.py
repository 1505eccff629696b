"""AIPerf's files: `profile_export.jsonl`, a line a request, and `profile_export_aiperf.json`, statistics of all.

Names and units are AIPerf's (docs/tutorials/working-with-profile-exports.md of github.com/ai-dynamo/aiperf, 2026):
latencies in milliseconds, instants in nanoseconds of the epoch, `inter_token_latency` the mean gap of a request after
its first token, which is our TPOT. A run without a wall clock begins at the epoch.
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from engine.core import metrics
from engine.core.metrics import FloatArray, Slo
from engine.core.trace import Trace

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
# finish_reason -> (code, type, message) of a request that did not complete, with HTTP's codes
ERRORS = {
    "rejected": (429, "TooManyRequests", "refused before any work"),
    "timeout": (504, "RequestTimeout", "the client's time limit passed"),
    "abort": (499, "RequestCancellationError", "the user went away"),
}
FAILED = (500, "InternalServerError", "the request failed")


def records(trace: Trace) -> str:
    """`profile_export.jsonl`: a line a request, in the order of arrival."""
    return "".join(json.dumps(record, allow_nan=False) + "\n" for record in _records(trace))


def summary(trace: Trace, slo: Slo | None = None) -> dict[str, Any]:
    """`profile_export_aiperf.json`; `goodput` is null without targets."""
    requests, start = trace.requests, _start(trace)
    done = metrics.completed(requests)
    distributions = {
        "time_to_first_token": (metrics.ttft_s(requests) * 1e3, "ms"),
        "inter_token_latency": (metrics.tpot_s(requests) * 1e3, "ms"),
        "request_latency": (metrics.e2e_s(requests) * 1e3, "ms"),
        "output_token_throughput_per_user": (_per_user(requests), "tokens/sec/user"),
        "input_sequence_length": (requests["prompt_tokens"].to_numpy(dtype=float)[done], "tokens"),
        "output_sequence_length": (requests["output_tokens"].to_numpy(dtype=float)[done], "tokens"),
    }
    duration_s = metrics.makespan_s(requests)
    totals = {
        "request_throughput": (metrics.request_throughput(requests), "requests/sec"),
        "output_token_throughput": (metrics.output_throughput(requests), "tokens/sec"),
        "request_count": (float(done.sum()), "requests"),
        "benchmark_duration": (duration_s, "sec"),
    }
    if slo is not None:
        totals["goodput"] = (metrics.goodput(requests, slo), "requests/sec")
    ends = start + timedelta(seconds=0.0 if math.isnan(duration_s) else duration_s)
    return {
        **{tag: found for tag, (values, unit) in distributions.items() if (found := _distribution(values, unit))},
        **{tag: {"unit": unit, "avg": value} for tag, (value, unit) in totals.items() if not math.isnan(value)},
        **({} if slo is not None else {"goodput": None}),
        "was_cancelled": False,
        "start_time": start.isoformat(),
        "end_time": ends.isoformat(),
        "error_summary": _errors(requests[~done]),
        **({"simulated": True} if trace.meta.get("simulated") else {}),
    }


def _records(trace: Trace) -> Iterator[dict[str, Any]]:
    requests, epoch_ns = trace.requests, int(_start(trace).timestamp() * 1e9)
    names = _session_names(requests)
    sessions = _sessions(names)
    values_ms = {
        "time_to_first_token": metrics.ttft_s(requests) * 1e3,
        "request_latency": metrics.e2e_s(requests) * 1e3,
        "inter_token_latency": metrics.tpot_s(requests) * 1e3,
    }
    per_user, done, sent_s = _per_user(requests), metrics.completed(requests), metrics.sent_s(requests)
    for i, row in enumerate(requests.to_dict("records")):
        end_s = row["finish_s"]
        metadata = {
            "session_num": sessions[0][i], "x_request_id": str(row.get("request_id", i)),
            "x_correlation_id": names[i], "turn_index": sessions[1][i],
            "request_start_ns": epoch_ns + round(sent_s[i] * 1e9),
            "request_end_ns": None if math.isnan(end_s) else epoch_ns + round(end_s * 1e9),
            "benchmark_phase": "profiling", "was_cancelled": row.get("finish_reason") in ("abort", "timeout"),
        }  # fmt: skip
        if not done[i]:
            told = {"error_isl": {"value": int(row["prompt_tokens"]), "unit": "tokens"}}
            yield {"metadata": metadata, "metrics": told, "error": _error(str(row.get("finish_reason")))}
            continue
        found: dict[str, Any] = {
            tag: {"value": float(of[i]), "unit": "ms"} for tag, of in values_ms.items() if not math.isnan(of[i])
        }
        for tag, name in (("input_sequence_length", "prompt_tokens"), ("output_sequence_length", "output_tokens")):
            found[tag] = {"value": int(row[name]), "unit": "tokens"}
        if not math.isnan(per_user[i]):
            found["output_token_throughput_per_user"] = {"value": float(per_user[i]), "unit": "tokens/sec/user"}
        if "token_times_s" in row:
            gaps_ms = np.diff(row["token_times_s"]) * 1e3
            found["inter_chunk_latency"] = {"value": gaps_ms.tolist(), "unit": "ms"}
        yield {"metadata": metadata, "metrics": found, "error": None}


def _session_names(requests: pd.DataFrame) -> list[str | None]:
    if "session_id" not in requests:
        return [None] * len(requests)
    return [None if pd.isna(name) else str(name) for name in requests["session_id"]]


def _sessions(names: list[str | None]) -> tuple[list[int], list[int]]:
    """Number of each request's session in the order of first appearance, and its turn within it."""
    own = pd.Series([f"\0{i}" if name is None else name for i, name in enumerate(names)])  # alone where it has no name
    return pd.factorize(own)[0].tolist(), own.groupby(own).cumcount().tolist()


def _per_user(requests: pd.DataFrame) -> FloatArray:
    """1 / TPOT: tokens per second that one user sees after the first."""
    tpot = metrics.tpot_s(requests)
    rate: FloatArray = np.divide(1.0, tpot, out=np.full(len(tpot), np.nan), where=tpot > 0)
    return rate


def _distribution(values: FloatArray, unit: str) -> dict[str, Any] | None:
    known = values[~np.isnan(values)]
    if known.size == 0:
        return None
    points = {f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(known, PERCENTILES), strict=True)}
    deviation = float(known.std(ddof=1)) if known.size > 1 else 0.0
    ends = {"min": float(known.min()), "max": float(known.max()), "std": deviation}
    return {"unit": unit, "avg": float(known.mean()), **points, **ends, "count": int(known.size)}


def _errors(failed: pd.DataFrame) -> list[dict[str, Any]]:
    if "finish_reason" not in failed:
        return []
    reasons = failed["finish_reason"].astype(str).value_counts(sort=False)
    return [{"error_details": _error(str(reason)), "count": int(count)} for reason, count in reasons.items()]


def _error(reason: str) -> dict[str, Any]:
    code, kind, message = ERRORS.get(reason, FAILED)
    return {"code": code, "type": kind, "message": message}


def _start(trace: Trace) -> datetime:
    started = trace.meta.get("started_at")
    found = datetime.fromisoformat(started) if started else datetime.fromtimestamp(0, UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
