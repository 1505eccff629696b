"""Recorded request streams as workloads: public traces and our own requests tables, told apart by their content.

Azure 2023/2024 CSV, BurstGPT CSV, Mooncake JSONL, and the requests of a trace (folder, parquet or CSV). Rows without
an output token (a failure, in these logs) are left out and counted in the description; anything else that is wrong is
an error.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.core.trace import Trace, read_table, read_trace, require_for_replay
from engine.core.workload import IntArray, Workload, requests_of
from roofline.errors import TraceError

KEY_BLOCK_SIZES = (512, 256, 128, 64, 32, 16, 8)  # tokens a hash may cover; the largest that explains every row counts
MAX_WHOLE = 1 << 53  # beyond, a float no longer holds every whole number
_MOONCAKE_FIELDS = ("timestamp", "input_length", "output_length")


def read_workload(path: Path | str) -> Workload:
    """Read a request stream of any known format; TraceError names the file, the row and the remedy."""
    path = Path(path)
    if not path.exists():
        raise TraceError(f"{path} does not exist; give a request trace (CSV, JSONL, parquet) or a trace folder.")
    if path.is_dir():
        return workload_of(read_trace(path))
    with path.open("rb") as file:
        first = file.readline()
    if first.lstrip().startswith(b"{"):
        return _read_mooncake(path)
    if first.startswith(b"PAR1"):
        return workload_of(read_trace(path))
    header = {name.strip() for name in first.decode("utf-8-sig", errors="replace").split(",")}
    if {"ContextTokens", "GeneratedTokens"} <= header:
        return _read_azure(path)
    if {"Request tokens", "Response tokens"} <= header:
        return _read_burstgpt(path)
    return workload_of(read_trace(path))


def workload_of(trace: Trace) -> Workload:
    """The requests of a trace as a workload: what was asked for again, with the lengths that came out."""
    table = require_for_replay(trace)
    lengths = (table[name].to_numpy() for name in ("arrival_s", "prompt_tokens", "output_tokens"))
    requests = requests_of(*lengths)
    for name in ("max_tokens", "priority"):
        if name in table:
            requests[name] = table[name].to_numpy()
    if "session_id" in table:
        requests["session_id"] = table["session_id"]
    keys = (tuple(table["block_keys"]), _key_block_size(trace)) if "block_keys" in table else None
    return _workload(requests, trace.source, "trace", keys)


def _read_azure(path: Path) -> Workload:
    frame = read_table(path).rename(columns=str.strip)
    _need(frame, ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), path)
    stamps = pd.to_datetime(frame["TIMESTAMP"], format="ISO8601", errors="coerce", utc=True)
    for row in np.flatnonzero(stamps.isna())[:1]:
        value = frame["TIMESTAMP"].iat[row]
        raise TraceError(f"{path}: TIMESTAMP is {value!r} in row {row + 1}; it must be a date and time.")
    nanoseconds = pd.DatetimeIndex(stamps).as_unit("ns").asi8
    arrival_s = (nanoseconds - nanoseconds[0]) / 1e9
    requests = requests_of(arrival_s, _whole(frame, "ContextTokens", path), _whole(frame, "GeneratedTokens", path))
    return _workload(requests, str(path), "azure")


def _read_burstgpt(path: Path) -> Workload:
    frame = read_table(path)
    _need(frame, ("Timestamp", "Request tokens", "Response tokens"), path)
    seconds = pd.to_numeric(frame["Timestamp"], errors="coerce").to_numpy(dtype=float)
    prompt, output = _whole(frame, "Request tokens", path), _whole(frame, "Response tokens", path)
    return _workload(requests_of(seconds - seconds[0], prompt, output), str(path), "burstgpt")


def _read_mooncake(path: Path) -> Workload:
    rows = list(_json_rows(path))
    frame = pd.DataFrame({name: [row.get(name) for row in rows] for name in _MOONCAKE_FIELDS})
    prompt, output = _whole(frame, "input_length", path), _whole(frame, "output_length", path)
    requests = requests_of(frame["timestamp"].to_numpy(dtype=float) / 1000, prompt, output)
    hashes = [row.get("hash_ids") for row in rows]
    if any(value is None for value in hashes):
        return _workload(requests, str(path), "mooncake")
    keys = tuple(_hash_ids(value, path, row) for row, value in enumerate(hashes, 1))
    return _workload(requests, str(path), "mooncake", (keys, _infer_key_block_size(keys, prompt, path)))


def _hash_ids(value: Any, path: Path, row: int) -> IntArray:
    whole = isinstance(value, list) and all(isinstance(key, int) and abs(key) <= MAX_WHOLE for key in value)
    if not whole:
        raise TraceError(f"{path}: hash_ids of request {row} is {str(value)[:40]}; it must be a list of whole numbers.")
    return np.asarray(value, dtype=np.int64)


def _json_rows(path: Path) -> Iterable[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise TraceError(f"{path}: line {number} is not a JSON object ({error}).") from None
            for name in _MOONCAKE_FIELDS:
                if not isinstance(row, dict) or not isinstance(row.get(name), int | float):
                    raise TraceError(f"{path}: line {number} lacks a number {name}; each line is one request with it.")
            yield row


def _infer_key_block_size(keys: Sequence[IntArray], prompt_tokens: IntArray, path: Path) -> int:
    """Tokens a hash covers: the size for which every row has a key a full block, or one more for the partial last."""
    counts = np.array([value.size for value in keys])
    for size in KEY_BLOCK_SIZES:
        if np.all((counts >= prompt_tokens // size) & (counts <= -(-prompt_tokens // size))):
            return size
    raise TraceError(
        f"{path}: the numbers of hash_ids fit no block size of {', '.join(map(str, KEY_BLOCK_SIZES))} tokens; every "
        "request needs one hash a block of its prompt."
    )


def _key_block_size(trace: Trace) -> int:
    size = (trace.meta.get("workload") or {}).get("key_block_size")
    if not isinstance(size, int) or size < 1:
        raise TraceError(
            f"{trace.source}: requests have block_keys but meta.json's workload.key_block_size is {size!r}; it says "
            "how many tokens a key covers."
        )
    return size


def _workload(
    requests: pd.DataFrame, source: str, kind: str, keys: tuple[tuple[IntArray, ...], int] | None = None
) -> Workload:
    """The checked workload; `keys` are every row's block keys and the tokens a key covers."""
    arrival_s = requests["arrival_s"].to_numpy()
    for row in np.flatnonzero(~(np.isfinite(arrival_s) & (np.diff(arrival_s, prepend=0.0) >= 0)))[:1]:
        raise TraceError(
            f"{source}: the arrival in row {row + 1} lies before the row above, or is no time; sort the rows by time."
        )
    kept = np.flatnonzero(requests["output_tokens"].to_numpy() != 0)
    if kept.size == 0:
        raise TraceError(f"{source} holds no request with an answer; there is nothing to serve.")
    for name in ("prompt_tokens", "max_tokens"):
        for row in kept[requests[name].to_numpy()[kept] < 1][:1]:
            raise TraceError(f"{source}: {name} is {requests[name].iat[row]} in row {row + 1}; it must be at least 1.")
    too_long = requests["output_tokens"].to_numpy() > requests["max_tokens"].to_numpy()
    for row in np.flatnonzero(too_long)[:1]:
        output, most = requests["output_tokens"].iat[row], requests["max_tokens"].iat[row]
        raise TraceError(f"{source}: output_tokens is {output} in row {row + 1}, above its max_tokens of {most}.")
    description = {
        "kind": kind,
        "source": Path(source).name,
        "rows": len(requests),
        "left_out": len(requests) - kept.size,
    }
    requests = requests.iloc[kept].reset_index(drop=True)
    if keys is None:
        return Workload(requests, description=description)
    return Workload(requests, tuple(keys[0][row] for row in kept), keys[1], {**description, "key_block_size": keys[1]})


def _need(frame: pd.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    for name in columns:
        if name not in frame:
            raise TraceError(f"{path} lacks the column {name}; add or rename it.")
    if frame.empty:
        raise TraceError(f"{path} has no rows; there is nothing to serve.")


def _whole(frame: pd.DataFrame, name: str, path: Path) -> IntArray:
    """A column of whole numbers from 0 to `MAX_WHOLE`."""
    numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float)
    for row in np.flatnonzero(~((numbers >= 0) & (numbers <= MAX_WHOLE)) | (numbers != np.floor(numbers)))[:1]:
        value = frame[name].iat[row]
        raise TraceError(f"{path}: {name} is {value} in row {row + 1}; it must be a whole number from 0 to 2^53.")
    return numbers.astype(np.int64)
