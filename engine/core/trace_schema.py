"""The columns of a measured or simulated trace, and the check that a table obeys them.

`steps` has one row a forward pass, `requests` one row a request; docs/formats.md gives the meaning of each column. A
table may lack columns (foreign measurements know less) and may carry more; a column that is there is complete and of
its type. Seconds are null (NaN) only where `NULLABLE` allows it.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from roofline.errors import TraceError

COUNT, SECONDS, TEXT, TIMES, KEYS = "int64", "float64", "object", "list<float64>", "list<int64>"

STEP_COLUMNS: Mapping[str, str] = {
    "step": COUNT,
    "start_s": SECONDS,
    "wall_s": SECONDS,
    "device_s": SECONDS,
    "schedule_s": SECONDS,
    "prepare_s": SECONDS,
    "sample_s": SECONDS,
    "mode": TEXT,  # eager | graph
    "graph_batch": COUNT,  # 0 in eager mode
    "num_prefill_seqs": COUNT,
    "prefill_tokens": COUNT,
    "prefill_kv_tokens": COUNT,
    "prefill_attn_pairs": COUNT,
    "num_decode_seqs": COUNT,
    "decode_tokens": COUNT,
    "decode_kv_tokens": COUNT,
    "decode_kv_max": COUNT,
    "cached_tokens": COUNT,
    "draft_tokens": COUNT,
    "accepted_tokens": COUNT,
    "kv_blocks_used": COUNT,
    "kv_blocks_total": COUNT,  # blocks that requests can own: num_blocks - 1
    "num_running": COUNT,
    "num_waiting": COUNT,
    "num_preempted": COUNT,
}
REQUEST_COLUMNS: Mapping[str, str] = {
    "request_id": TEXT,
    "session_id": TEXT,
    "arrival_s": SECONDS,  # intended
    "send_s": SECONDS,  # null where it is arrival_s
    "prompt_tokens": COUNT,
    "output_tokens": COUNT,
    "max_tokens": COUNT,
    "cached_tokens": COUNT,
    "first_scheduled_s": SECONDS,
    "first_token_s": SECONDS,
    "finish_s": SECONDS,
    "num_preemptions": COUNT,
    "finish_reason": TEXT,  # stop | length | abort, and simulated: rejected | timeout | failed
    "token_times_s": TIMES,
}
# Written only where the workload has them: an exact replay needs priorities under the priority policy and the prompt's
# block keys (blocks of meta.json's workload.key_block_size tokens) under prefix caching.
OPTIONAL_REQUEST_COLUMNS: Mapping[str, str] = {"priority": COUNT, "block_keys": KEYS}

NULLABLE = frozenset(
    {"device_s", "schedule_s", "prepare_s", "sample_s", "send_s", "first_scheduled_s", "first_token_s", "finish_s"}
)
SIGNED = frozenset({"priority"})

FIT_STEP_COLUMNS = ("prefill_tokens", "num_prefill_seqs", "prefill_kv_tokens", "num_decode_seqs", "decode_kv_tokens")
REPLAY_REQUEST_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")

# A float64 holds microseconds exactly enough only up to here, and clocks of several machines agree no better.
CLOCK_SLACK_S = 1e-6


def checked_steps(frame: pd.DataFrame, place: str) -> pd.DataFrame:
    """The steps with their types set, known columns first; TraceError names the row that breaks a rule."""
    steps = _typed(frame, STEP_COLUMNS, place)
    if "wall_s" in steps:
        _refuse(steps["wall_s"] <= 0, steps["wall_s"], place, "it must be positive")
    if "start_s" in steps:
        _refuse(steps["start_s"].diff() < 0, steps["start_s"], place, "it lies before the row above; sort by start_s")
    return steps


def checked_requests(frame: pd.DataFrame, place: str) -> pd.DataFrame:
    """The requests with their types set, known columns first; TraceError names the row that breaks a rule."""
    requests = _typed(frame, {**REQUEST_COLUMNS, **OPTIONAL_REQUEST_COLUMNS}, place)
    if "prompt_tokens" in requests:
        _refuse(requests["prompt_tokens"] < 1, requests["prompt_tokens"], place, "a prompt has at least 1 token")
    if "arrival_s" in requests:
        arrival = requests["arrival_s"]
        _refuse(arrival.diff() < 0, arrival, place, "it lies before the row above; sort the rows by arrival_s")
    order = [name for name in ("arrival_s", "first_token_s", "finish_s") if name in requests]
    for earlier, later in pairwise(order):
        _refuse(
            requests[later] < requests[earlier] - CLOCK_SLACK_S, requests[later], place, f"that is before {earlier}"
        )
    if "token_times_s" in requests:
        _check_token_times(requests, place)
    return requests


def _typed(frame: pd.DataFrame, schema: Mapping[str, str], place: str) -> pd.DataFrame:
    frame = frame.reset_index(drop=True)
    known = [name for name in schema if name in frame and _is_known(frame[name], schema[name])]
    others = [name for name in frame if name not in schema]
    columns = {name: _column(frame[name], schema[name], place) for name in known}
    return pd.DataFrame(columns | {name: frame[name] for name in others}, index=frame.index)


def _is_known(column: "pd.Series[Any]", dtype: str) -> bool:
    """False for a column that is null throughout, which is the same as an absent one where null has no meaning."""
    return dtype == TEXT or column.name in NULLABLE or column.empty or not column.isna().all()


def _column(column: "pd.Series[Any]", dtype: str, place: str) -> "pd.Series[Any]":
    if dtype == TEXT:
        return column.astype(object).where(column.notna(), None)
    if dtype in (TIMES, KEYS):
        return _arrays(column, np.dtype("float64" if dtype == TIMES else "int64"), place)
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    name = str(column.name)
    _refuse(numbers.isna() & column.notna() | np.isinf(numbers), column, place, "it must be a finite number")
    if dtype == COUNT:
        _refuse(numbers.isna(), column, place, "fill it, or leave the column out")
        _refuse(numbers != np.floor(numbers), column, place, "it must be a whole number")
    elif name not in NULLABLE:
        _refuse(numbers.isna(), column, place, "fill it in")
    if name not in SIGNED:
        _refuse(numbers < 0, column, place, "it must not be negative")
    return pd.to_numeric(column).astype("int64") if dtype == COUNT else numbers


def _arrays(column: "pd.Series[Any]", dtype: np.dtype[Any], place: str) -> "pd.Series[Any]":
    values = np.empty(len(column), dtype=object)
    for row, value in enumerate(column):
        try:
            values[row] = np.asarray(value, dtype=dtype)
        except (TypeError, ValueError):
            raise TraceError(
                f"{place}: {column.name} in row {row + 1} is {value!r}; it must be a list of numbers."
            ) from None
        if values[row].ndim != 1:
            raise TraceError(f"{place}: {column.name} in row {row + 1} is {value!r}; it must be a list.")
    return pd.Series(values, name=column.name, dtype=object)


def _check_token_times(requests: pd.DataFrame, place: str) -> None:
    times = requests["token_times_s"]
    counts = np.fromiter((len(value) for value in times), dtype=np.int64, count=len(times))
    if "output_tokens" in requests:
        wrong = pd.Series(counts != requests["output_tokens"].to_numpy(), index=requests.index)
        _refuse(wrong, times, place, "it must hold one time for each of output_tokens")
    flat = np.concatenate([*times, np.empty(0)])
    rows = np.repeat(np.arange(len(times)), counts)
    backwards = ~np.isfinite(flat)
    backwards[1:] |= (np.diff(flat) < 0) & (rows[1:] == rows[:-1])
    wrong = pd.Series(False, index=requests.index)
    wrong.iloc[rows[backwards]] = True
    _refuse(wrong, times, place, "its times must not go backwards")


def _refuse(wrong: "pd.Series[bool]", column: "pd.Series[Any]", place: str, remedy: str) -> None:
    """Raise for the first row where `wrong` is true; data rows count from 1."""
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        value = column.iloc[row]
        raise TraceError(f"{place}: {column.name} is {_shown(value)} in row {row + 1}; {remedy}.")


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and isnan(value)):
        return "empty"
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
