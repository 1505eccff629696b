"""A trace: what happened in every forward pass and to every request, measured or simulated, as a folder of files.

`meta.json` says where the figures come from, `steps` and `requests` (parquet, or CSV with the same column names) hold
them; trace_schema.py checks them. One format serves the engine, the simulator and foreign measurements, so every
reader, metric and figure serves all three.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from engine.core.trace_schema import (
    COUNT,
    FIT_STEP_COLUMNS,
    KEYS,
    OPTIONAL_REQUEST_COLUMNS,
    REPLAY_REQUEST_COLUMNS,
    REQUEST_COLUMNS,
    SECONDS,
    STEP_COLUMNS,
    TEXT,
    TIMES,
    checked_requests,
    checked_steps,
)
from roofline.errors import TraceError

SCHEMA_VERSION = 1
BENCH_RESULT_FILE = "bench.json"  # the summary in `vllm bench serve` format, beside the trace it comes from
TRACE_FILES = frozenset(
    {"meta.json", "steps.parquet", "steps.csv", "requests.parquet", "requests.csv", BENCH_RESULT_FILE}
)
Format = Literal["parquet", "csv"]

_SCHEMA = {**STEP_COLUMNS, **REQUEST_COLUMNS, **OPTIONAL_REQUEST_COLUMNS}
_ARROW = {
    COUNT: pa.int64(),
    SECONDS: pa.float64(),
    TEXT: pa.string(),
    TIMES: pa.list_(pa.float64()),
    KEYS: pa.list_(pa.int64()),
}


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Steps and requests with where they come from; a table that is not known is empty and has no columns.

    `source` is the path it was read from, for messages.
    """

    meta: dict[str, Any]
    steps: pd.DataFrame = field(default_factory=pd.DataFrame)
    requests: pd.DataFrame = field(default_factory=pd.DataFrame)
    source: str = "the trace"


def read_trace(path: Path | str) -> Trace:
    """Read a trace folder, or a single requests file (then `meta` is empty); TraceError names place and fault."""
    path = Path(path)
    if path.is_file():
        return Trace({}, requests=checked_requests(read_table(path), str(path)), source=str(path))
    if not path.is_dir():
        raise TraceError(f"{path} does not exist; give a trace folder or a requests file.")
    meta = read_meta(path / "meta.json")
    steps, requests = find_table(path, "steps"), find_table(path, "requests")
    if steps is None and requests is None:
        raise TraceError(f"{path} holds neither steps nor requests (.parquet or .csv); it is no trace.")
    return Trace(
        meta,
        steps=pd.DataFrame() if steps is None else checked_steps(read_table(steps), str(steps)),
        requests=pd.DataFrame() if requests is None else checked_requests(read_table(requests), str(requests)),
        source=str(path),
    )


def write_trace(
    folder: Path | str, trace: Trace, table_format: Format = "parquet", texts: Mapping[str, str] | None = None
) -> None:
    """Write a trace folder whole or not at all, in place of an older trace but of nothing else.

    `texts` are further files by name (of `TRACE_FILES`). A steps or requests table without columns is left out.
    """
    folder = Path(folder)
    check_writable(folder)
    meta = json.dumps({"schema_version": SCHEMA_VERSION, **trace.meta}, indent=2, allow_nan=False)
    steps, requests = checked_steps(trace.steps, "steps"), checked_requests(trace.requests, "requests")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    fresh.mkdir()
    try:
        (fresh / "meta.json").write_text(meta + "\n")
        for name, text in (texts or {}).items():
            assert name in TRACE_FILES, f"{name} is no file of a trace"
            (fresh / name).write_text(text)
        for name, table in (("steps", steps), ("requests", requests)):
            if len(table.columns):
                _write_table(table, fresh / f"{name}.{table_format}")
        _put_in_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_writable(folder: Path | str) -> None:
    """TraceError unless `folder` can be made, is empty, or is an older trace that may be replaced."""
    folder = Path(folder)
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise TraceError(
            f"{folder} cannot be made, as {above} cannot be written to; choose a new folder for the trace."
        )
    if folder.is_dir():
        others = sorted(entry.name for entry in folder.iterdir() if entry.name not in TRACE_FILES)
        if others:
            raise TraceError(
                f"{folder} holds {others[0]}, which is no part of a trace; choose a new folder for the trace."
            )
    elif folder.exists():
        raise TraceError(f"{folder} is a file; choose a new folder for the trace.")


def require_for_fit(trace: Trace) -> pd.DataFrame:
    """The steps, if they say what a step-time fit needs: the work, and `wall_s` or `device_s`."""
    _require(trace, "steps", trace.steps, FIT_STEP_COLUMNS, "a fit")
    if "wall_s" not in trace.steps and not trace.steps.get("device_s", pd.Series(dtype=float)).notna().any():
        raise TraceError(f"{trace.source}: steps have neither wall_s nor device_s; a fit needs the time of each pass.")
    return trace.steps


def require_for_replay(trace: Trace) -> pd.DataFrame:
    """The requests, if they say what a replay needs: arrivals and both lengths."""
    _require(trace, "requests", trace.requests, REPLAY_REQUEST_COLUMNS, "a replay")
    return trace.requests


def trace_hash(trace: Trace) -> str:
    """SHA-256 (hex) of a trace's content: equal for the same trace in parquet and in CSV."""
    digest = hashlib.sha256(json.dumps({"schema_version": SCHEMA_VERSION, **trace.meta}, sort_keys=True).encode())
    for table in (trace.steps, trace.requests):
        for name in table:
            digest.update(f"\n{name}\n".encode())
            digest.update(_column_bytes(table[name], _SCHEMA.get(str(name), TEXT)))
    return digest.hexdigest()


def read_table(path: Path) -> pd.DataFrame:
    """One parquet or CSV file as a table, its list columns as arrays; nothing is checked yet."""
    try:
        if path.read_bytes()[:4] == b"PAR1":
            frame: pd.DataFrame = pq.ParquetFile(path).read().to_pandas()
            return frame
        return _read_csv(path)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise TraceError(f"{path} is neither a parquet file nor a CSV table: {_first_line(error)}.") from error


def _read_csv(path: Path) -> pd.DataFrame:
    """Through pyarrow, whose decimal conversion is exact: a float64 written by its repr comes back as it was."""
    text = {name: pa.string() for name, dtype in _SCHEMA.items() if dtype in (TEXT, TIMES, KEYS)}
    parse = csv.ParseOptions(newlines_in_values=True)
    convert = csv.ConvertOptions(column_types=text)
    frame: pd.DataFrame = csv.read_csv(path, parse_options=parse, convert_options=convert).to_pandas()
    for name in frame:
        if _is_list(str(name)):
            place = f"{path}: {name} in row"
            frame[name] = [_list_cell(cell, f"{place} {row}") for row, cell in enumerate(frame[name], 1)]
        elif _SCHEMA.get(str(name)) == TEXT:
            frame[name] = frame[name].astype(object).where(frame[name] != "", None)
    return frame


def _list_cell(cell: str, place: str) -> Any:
    if not cell:
        return None
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        raise TraceError(f"{place} is {cell[:40]!r}; it must be a JSON list such as [0.5, 0.75].") from None


def _write_table(table: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        lists = {str(name): table[name].map(lambda a: json.dumps(a.tolist())) for name in table if _is_list(str(name))}
        table.assign(**lists).to_csv(path, index=False, lineterminator="\n")
        return
    inferred = pa.Schema.from_pandas(table.drop(columns=[n for n in table if n in _SCHEMA]), preserve_index=False)
    fields = [(str(n), _ARROW[_SCHEMA[n]]) if n in _SCHEMA else inferred.field(n) for n in table]
    pq.write_table(pa.Table.from_pandas(table, schema=pa.schema(fields), preserve_index=False), path)


def _is_list(name: str) -> bool:
    return _SCHEMA.get(name) in (TIMES, KEYS)


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`; an older trace there goes only once the new one stands."""
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def find_table(folder: Path, name: str) -> Path | None:
    """The folder's table of that name, parquet or CSV; None where there is none, TraceError where there are both."""
    found = [path for path in (folder / f"{name}.parquet", folder / f"{name}.csv") if path.exists()]
    if len(found) > 1:
        raise TraceError(f"{folder} holds both {found[0].name} and {found[1].name}; remove one, they may differ.")
    return found[0] if found else None


def read_meta(path: Path) -> dict[str, Any]:
    """The contents of a `meta.json`; TraceError where it is missing, malformed or of another version."""
    if not path.exists():
        raise TraceError(f"{path.parent} has no meta.json; a trace says there which model and hardware it is of.")
    try:
        meta = json.loads(path.read_text())
    except ValueError as error:
        raise TraceError(f"{path} is not valid JSON: {_first_line(error)}.") from error
    if not isinstance(meta, dict):
        raise TraceError(f"{path} holds a {type(meta).__name__}; it must be a JSON object.")
    if meta.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise TraceError(f"{path} has schema_version {meta['schema_version']!r}; this version reads {SCHEMA_VERSION}.")
    return meta


def _require(trace: Trace, table: str, frame: pd.DataFrame, columns: Sequence[str], purpose: str) -> None:
    if not len(frame.columns):
        raise TraceError(f"{trace.source} holds no {table}; {purpose} needs {table}.parquet or {table}.csv.")
    missing = [name for name in columns if name not in frame]
    if missing:
        raise TraceError(
            f"{trace.source}: {table} lack the column {missing[0]}, which {purpose} needs; add or rename it."
        )
    if frame.empty:
        raise TraceError(f"{trace.source}: {table} have no rows; {purpose} needs at least one.")


def _column_bytes(column: "pd.Series[Any]", dtype: str) -> bytes:
    if dtype in (TIMES, KEYS):
        counts = np.fromiter((len(value) for value in column), dtype=np.int64, count=len(column))
        return counts.tobytes() + b"".join(value.tobytes() for value in column)
    if dtype == TEXT:
        return json.dumps([None if pd.isna(value) else str(value) for value in column]).encode()
    return column.to_numpy().tobytes()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
