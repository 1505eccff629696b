"""A run as a timeline for ui.perfetto.dev: Chrome's trace event format, gzipped.

Each replica is a process: its steps stand on one track with what they computed, counters show what runs, waits and is
cached, and each request is a span from its arrival at the replica to its last token, with its queue and prefill inside.
Times are microseconds from the start of the run.
"""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from engine.core import metrics
from engine.core.trace import Trace

Event = dict[str, Any]
_STEP_ARGUMENTS = (
    "num_prefill_seqs", "prefill_tokens", "num_decode_seqs", "decode_tokens", "decode_kv_tokens", "cached_tokens",
    "num_running", "num_waiting", "num_preempted",
)  # fmt: skip

_REQUEST_ARGUMENTS = ("prompt_tokens", "output_tokens", "num_preemptions", "finish_reason")


def timeline(trace: Trace) -> bytes:
    """The file's bytes; the same trace gives the same bytes."""
    document = {"displayTimeUnit": "ms", "otherData": _about(trace), "traceEvents": list(events(trace))}
    return gzip.compress(json.dumps(document, separators=(",", ":"), allow_nan=False).encode(), mtime=0)


def events(trace: Trace) -> Iterator[Event]:
    """Every event: names first, then steps with their counters, then requests."""
    steps = _with_replica(trace.steps)
    requests = _with_replica(trace.requests)
    for replica in sorted({*steps["replica"], *requests["replica"]}):
        yield {"ph": "M", "name": "process_name", "pid": replica, "args": {"name": f"replica {replica}"}}
        yield {"ph": "M", "name": "thread_name", "pid": replica, "tid": 0, "args": {"name": "forward passes"}}
    for row in _rows(steps):
        yield from _step(row)
    if len(requests):
        sent_s = metrics.sent_s(requests)
        for number, row in enumerate(_rows(requests)):
            yield from _request(row, float(sent_s[number]), number)


def _step(row: Event) -> Iterator[Event]:
    start_us, pid = row["start_s"] * 1e6, int(row["replica"])
    prefills, decodes = row.get("num_prefill_seqs", 0), row.get("num_decode_seqs", 0)
    name = "mixed" if prefills and decodes else "prefill" if prefills else "decode"
    told = {key: int(row[key]) for key in _STEP_ARGUMENTS if key in row}
    yield {
        "ph": "X", "name": name, "cat": "step", "pid": pid, "tid": 0, "ts": start_us, "dur": row["wall_s"] * 1e6,
        "args": told,
    }  # fmt: skip
    counters = {"running": row.get("num_running"), "waiting": row.get("num_waiting")}
    if row.get("kv_blocks_total"):
        counters["kv usage"] = row["kv_blocks_used"] / row["kv_blocks_total"]
    for counter, value in counters.items():
        if value is not None:
            yield {"ph": "C", "name": counter, "pid": pid, "ts": start_us, "args": {counter: value}}


def _request(row: Event, sent_s: float, number: int) -> Iterator[Event]:
    """Nested spans of one request; a part whose ends are not known is left out."""
    identity = {"cat": "request", "id": number, "pid": int(row["replica"])}
    told = {
        key: row[key] for key in ("prompt_tokens", "output_tokens", "num_preemptions", "finish_reason") if key in row
    }
    stamps = {key: row.get(key, float("nan")) for key in ("first_scheduled_s", "first_token_s", "finish_s")}
    spans = [
        (str(row.get("request_id", number)), sent_s, stamps["finish_s"], told),
        ("queue", sent_s, stamps["first_scheduled_s"], {}),
        ("prefill", stamps["first_scheduled_s"], stamps["first_token_s"], {}),
        ("decode", stamps["first_token_s"], stamps["finish_s"], {}),
    ]
    for name, begin_s, end_s, arguments in spans:
        if begin_s <= end_s:  # not where either is NaN
            yield {**identity, "ph": "b", "name": name, "ts": begin_s * 1e6, "args": arguments}
            yield {**identity, "ph": "e", "name": name, "ts": end_s * 1e6}


def _rows(table: pd.DataFrame) -> list[Event]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _with_replica(table: pd.DataFrame) -> pd.DataFrame:
    return table if "replica" in table else table.assign(replica=pd.Series(0, index=table.index, dtype="int64"))


def _about(trace: Trace) -> dict[str, Any]:
    """Where it comes from, as far as the trace says."""
    known = {name: trace.meta.get(name) for name in ("engine", "hardware", "tensor_parallel", "seed", "simulated")}
    return {name: value for name, value in known.items() if value is not None}
