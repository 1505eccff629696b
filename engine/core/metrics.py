"""Every latency and throughput figure, each one formula over a request's timestamps, with vLLM's definitions.

sent = send_s where it is known, else arrival_s; first = first_token_s; end = finish_s; n = output_tokens. All times are
seconds. Only completed requests count: those that ended by themselves (finish_reason stop or length; where that column
is missing, those with an end). A figure that is not defined or was not measured is NaN in arrays and None in summaries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.core.trace import Trace
from roofline.errors import InputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
PERCENTILES = (50, 90, 99)


def sent_s(requests: pd.DataFrame) -> FloatArray:
    """When the client sent each request: send_s, or arrival_s where send_s is null."""
    arrival, send = _seconds(requests, "arrival_s"), _seconds(requests, "send_s")
    return np.where(np.isnan(send), arrival, send)


def completed(requests: pd.DataFrame) -> BoolArray:
    """True for requests that ended by themselves."""
    if "finish_reason" in requests:
        return requests["finish_reason"].isin(["stop", "length"]).to_numpy(dtype=bool)
    return ~np.isnan(_seconds(requests, "finish_s"))


def ttft_s(requests: pd.DataFrame) -> FloatArray:
    """Time to first token = first - sent; NaN where no token came or the request did not complete."""
    return _of_completed(requests, _seconds(requests, "first_token_s") - sent_s(requests))


def e2e_s(requests: pd.DataFrame) -> FloatArray:
    """End-to-end latency = end - sent, queueing included; NaN where the request did not complete."""
    return _of_completed(requests, _seconds(requests, "finish_s") - sent_s(requests))


def tpot_s(requests: pd.DataFrame) -> FloatArray:
    """Time per output token after the first = (end - first) / (n - 1); NaN for n < 2, where there is no such token."""
    n = _counts(requests, "output_tokens")
    span = _seconds(requests, "finish_s") - _seconds(requests, "first_token_s")
    return _of_completed(requests, np.divide(span, n - 1, out=np.full(len(requests), np.nan), where=n > 1))


def itl_s(requests: pd.DataFrame) -> FloatArray:
    """Inter-token latencies: every gap between successive tokens of completed requests, pooled.

    Shape (sum of n - 1,). Tokens that one step yields together (speculation) have gaps of 0. Empty where token_times_s
    is unknown.
    """
    if "token_times_s" not in requests:
        return np.empty(0)
    times = requests["token_times_s"].to_numpy()[completed(requests)]
    return np.concatenate([np.empty(0), *(np.diff(of_request) for of_request in times)])


def makespan_s(requests: pd.DataFrame) -> float:
    """From the first sending to the last end, aborted requests included; NaN without an end."""
    ends = _seconds(requests, "finish_s")
    return float(np.nanmax(ends) - np.min(sent_s(requests))) if np.isfinite(ends).any() else float("nan")


def request_throughput(requests: pd.DataFrame) -> float:
    """Completed requests a second of makespan; NaN where the makespan is unknown or 0."""
    return _rate(int(completed(requests).sum()), makespan_s(requests))


def output_throughput(requests: pd.DataFrame) -> float:
    """Output tokens of completed requests a second of makespan; NaN where the makespan is unknown or 0."""
    return _rate(int(_counts(requests, "output_tokens")[completed(requests)].sum()), makespan_s(requests))


@dataclass(frozen=True, slots=True)
class Slo:
    """Latency targets in seconds that each request must meet; None: no such target."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


def parse_slo(text: str) -> Slo:
    """Targets from `ttft:500 tpot:50 e2el:10000` (milliseconds), any of the three in any order."""
    names = {"ttft": "ttft_s", "tpot": "tpot_s", "e2el": "e2e_s"}
    targets: dict[str, float] = {}
    for part in text.split():
        name, _, value = part.partition(":")
        try:
            milliseconds = float(value)
        except ValueError:
            milliseconds = float("nan")
        if name not in names or names[name] in targets or not 0 < milliseconds < float("inf"):
            raise InputError(f"SLO {part!r} is not understood; write for example: ttft:500 tpot:50 e2el:10000 (in ms).")
        targets[names[name]] = milliseconds / 1000
    if not targets:
        raise InputError("the SLO is empty; write for example: ttft:500 tpot:50 e2el:10000 (in ms).")
    return Slo(**targets)


def meets(requests: pd.DataFrame, slo: Slo) -> BoolArray:
    """True for completed requests that keep every target; TPOT is kept where there is no token after the first."""
    good = completed(requests)
    for target, values in ((slo.ttft_s, ttft_s), (slo.e2e_s, e2e_s)):
        if target is not None:
            good = good & (values(requests) <= target)
    if slo.tpot_s is not None:
        good = good & ((tpot_s(requests) <= slo.tpot_s) | (_counts(requests, "output_tokens") < 2))
    return good


def attainment(requests: pd.DataFrame, slo: Slo) -> float:
    """Share of all requests, failed ones included, that meet the SLO; NaN without requests."""
    return float(meets(requests, slo).mean()) if len(requests) else float("nan")


def goodput(requests: pd.DataFrame, slo: Slo) -> float:
    """Requests that meet the SLO a second of makespan; NaN where the makespan is unknown or 0."""
    return _rate(int(meets(requests, slo).sum()), makespan_s(requests))


def latency_summary(values_s: FloatArray) -> dict[str, float] | None:
    """Mean, p50, p90 and p99 (linear interpolation) of the values that are defined; None if none is."""
    defined = values_s[~np.isnan(values_s)]
    if defined.size == 0:
        return None
    points = np.percentile(defined, PERCENTILES)
    return {"mean": float(defined.mean()), **{f"p{p}": float(v) for p, v in zip(PERCENTILES, points, strict=True)}}


def summarize(trace: Trace) -> dict[str, Any]:
    """The headline figures of a trace as strict JSON: latencies in seconds, None where not measured.

    {ttft_s | tpot_s | itl_s | e2e_s: {mean, p50, p90, p99}, request_throughput, output_throughput, makespan_s,
    num_requests, num_steps, num_preemptions}; num_requests counts every request, completed or not.
    """
    requests, steps = trace.requests, trace.steps
    known = len(requests) > 0
    latencies = {
        metric.__name__: latency_summary(metric(requests)) for metric in (ttft_s, tpot_s, itl_s, e2e_s) if known
    }
    totals = {
        total.__name__: none_if_nan(total(requests) if known else float("nan"))
        for total in (request_throughput, output_throughput, makespan_s)
    }
    return {
        **dict.fromkeys(("ttft_s", "tpot_s", "itl_s", "e2e_s")),
        **latencies,
        **totals,
        "num_requests": len(requests),
        "num_steps": len(steps) if len(steps.columns) else None,
        "num_preemptions": _preemptions(trace),
    }


def none_if_nan(value: float) -> float | None:
    """A number as strict JSON can hold it."""
    return None if np.isnan(value) else value


def _preemptions(trace: Trace) -> int | None:
    for table, column in ((trace.requests, "num_preemptions"), (trace.steps, "num_preempted")):
        if column in table:
            return int(table[column].sum())
    return None


def _of_completed(requests: pd.DataFrame, values: FloatArray) -> FloatArray:
    return np.where(completed(requests), values, np.nan)


def _seconds(requests: pd.DataFrame, name: str) -> FloatArray:
    if name not in requests:
        return np.full(len(requests), np.nan)
    return requests[name].to_numpy(dtype=np.float64)


def _counts(requests: pd.DataFrame, name: str) -> NDArray[np.int64]:
    if name not in requests:
        return np.zeros(len(requests), dtype=np.int64)
    return requests[name].to_numpy(dtype=np.int64)


def _rate(count: int, duration_s: float) -> float:
    return count / duration_s if duration_s > 0 else float("nan")
