"""Measured steps as arrays: the only door through which a measurement enters a fit.

Reads the `steps` table of a trace (docs/formats.md), or a foreign table with a column map: the least it must have is a
time, prefill_tokens, num_prefill_seqs, prefill_kv_tokens, num_decode_seqs and decode_kv_tokens. What is missing beyond
that is derived by a stated approximation and noted. Rows that cannot be used are counted by reason, never dropped
silently.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.form import features
from engine.core.trace import find_table, read_meta, read_table
from roofline.errors import TraceError
from roofline.step_time import BatchWork, FloatArray

REQUIRED = ("num_prefill_seqs", "prefill_tokens", "prefill_kv_tokens", "num_decode_seqs", "decode_kv_tokens")
WORK_COLUMNS = (*REQUIRED, "prefill_attn_pairs", "decode_tokens", "decode_kv_max")
REGIONS = ("decode", "prefill", "mixed")
CLOCKS = ("wall_s", "device_s")


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """How a foreign table names things: `names` maps our columns to theirs; their time times `scale` is seconds."""

    names: Mapping[str, str]
    scale: float = 1.0


OURS = ColumnMap({})
# Forward-pass metrics as vLLM's logger writes them; several prefill chunks in a row carry no pair count.
FORWARD_PASS_METRICS = ColumnMap(
    {
        "num_prefill_seqs": "num_prefill_requests",
        "prefill_tokens": "sum_prefill_tokens",
        "prefill_kv_tokens": "sum_prefill_kv_tokens",
        "num_decode_seqs": "num_decode_requests",
        "decode_kv_tokens": "sum_decode_kv_tokens",
        "wall_s": "latency_ms",
    },
    scale=1e-3,
)


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """Usable steps in the order they were measured; every array has shape (steps,).

    `columns` are float arrays under `BatchWork`'s names, `runs` the index of the trace a step comes from.
    """

    columns: dict[str, FloatArray]
    seconds: FloatArray
    runs: NDArray[np.int64]
    clock: str = "wall_s"
    unusable: dict[str, int] = field(default_factory=dict)  # reason -> rows left out
    derived: frozenset[str] = frozenset()  # columns that were assumed, as `notes` says
    notes: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()  # "name sha256:..." of every trace

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def amounts(self) -> FloatArray:
        """The columns as the step-time form wants them, shape (steps, terms)."""
        return features(self.columns)

    @property
    def regions(self) -> NDArray[np.int64]:
        """Index into `REGIONS`: 0 decode only, 1 prefill only, 2 mixed."""
        prefill, decode = self.columns["num_prefill_seqs"] > 0, self.columns["num_decode_seqs"] > 0
        return np.where(prefill & decode, 2, np.where(prefill, 1, 0)).astype(np.int64)

    def work(self, index: int) -> BatchWork:
        """The composition of one step."""
        return BatchWork(**{name: round(self.columns[name][index]) for name in WORK_COLUMNS})

    def select(self, index: NDArray[Any]) -> "Measurements":
        """The steps of a mask or an array of indices."""
        columns = {name: values[index] for name, values in self.columns.items()}
        return replace(self, columns=columns, seconds=self.seconds[index], runs=self.runs[index])


def from_table(
    table: pd.DataFrame, clock: str = "wall_s", column_map: ColumnMap = OURS, place: str = "the steps table"
) -> Measurements:
    """Steps of one table; raises TraceError for a missing column or when no row is usable."""
    columns, assumed = _work_columns(table, column_map, place)
    if clock == "wall_s" and not _has(table, column_map, clock) and _has(table, column_map, "device_s"):
        clock = "device_s"
        assumed["wall_s"] = "the device's time to be the whole step's, without the host's part"
    seconds = _numbers(table, column_map.names.get(clock, clock), place) * column_map.scale
    usable, unusable = _usable(columns, seconds)
    if not usable.any():
        reasons = ", ".join(f"{count} with {reason}" for reason, count in unusable.items()) or "it has no rows"
        raise TraceError(f"{place} has no usable step ({reasons}); measure again, or choose the other clock.")
    return Measurements(
        columns={name: values[usable] for name, values in columns.items()},
        seconds=seconds[usable],
        runs=np.zeros(int(usable.sum()), dtype=np.int64),
        clock=clock,
        unusable=unusable,
        derived=frozenset(assumed),
        notes=tuple(f"{place} has no {name}; assumed {what}." for name, what in assumed.items()),
    )


def _has(table: pd.DataFrame, column_map: ColumnMap, name: str) -> bool:
    return column_map.names.get(name, name) in table.columns


def _work_columns(
    table: pd.DataFrame, column_map: ColumnMap, place: str
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """The columns of `WORK_COLUMNS`, and what was assumed for those that the table lacks."""
    columns = {name: _numbers(table, column_map.names.get(name, name), place) for name in REQUIRED}
    derivations: dict[str, tuple[Callable[[dict[str, FloatArray]], FloatArray], str]] = {
        "decode_tokens": (_one_token_each, "one token a decoding sequence"),
        "prefill_attn_pairs": (_equal_chunk_pairs, "the prefill chunks of a step to be of equal length and context"),
        "decode_kv_max": (_mean_context, "the longest context to be the mean one"),
    }
    assumed = {}
    for name, (derive, assumption) in derivations.items():
        if _has(table, column_map, name):
            columns[name] = _numbers(table, column_map.names.get(name, name), place)
        else:
            columns[name] = derive(columns)
            assumed[name] = assumption
    return columns, assumed


def _numbers(table: pd.DataFrame, column: str, place: str) -> FloatArray:
    if column not in table.columns:
        present = ", ".join(map(str, table.columns[:30]))
        raise TraceError(f"{place} has no column {column!r} (it has: {present}); add it, or map another column to it.")
    return pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _one_token_each(columns: dict[str, FloatArray]) -> FloatArray:
    return columns["num_decode_seqs"]


def _equal_chunk_pairs(columns: dict[str, FloatArray]) -> FloatArray:
    """Query-key pairs of n equal chunks on equal contexts: exact for one chunk, no more than a guess for several."""
    chunks = np.maximum(columns["num_prefill_seqs"], 1.0)
    tokens = columns["prefill_tokens"]
    return tokens * columns["prefill_kv_tokens"] / chunks + tokens * (tokens / chunks + 1.0) / 2.0


def _mean_context(columns: dict[str, FloatArray]) -> FloatArray:
    return columns["decode_kv_tokens"] / np.maximum(columns["num_decode_seqs"], 1.0)


def _usable(columns: dict[str, FloatArray], seconds: FloatArray) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Rows that describe a possible step, and how many do not, by the first reason that applies."""
    stacked = np.vstack([columns[name] for name in WORK_COLUMNS])
    prefill, decode = columns["prefill_tokens"], columns["decode_tokens"]
    reasons = {
        "a time that is missing, infinite, zero or negative": ~(np.isfinite(seconds) & (seconds > 0)),
        "a missing or negative amount": ~np.isfinite(stacked).all(axis=0) | (stacked < 0).any(axis=0),
        "no token": ~(prefill + decode > 0),
        "tokens without sequences, or sequences without tokens": ((prefill > 0) != (columns["num_prefill_seqs"] > 0))
        | ((decode > 0) != (columns["num_decode_seqs"] > 0)),
    }
    usable = np.ones(len(seconds), dtype=bool)
    counts = {}
    for reason, wrong in reasons.items():
        if count := int((usable & wrong).sum()):
            counts[reason] = count
        usable &= ~wrong
    return usable, counts


def read(path: Path, clock: str = "wall_s") -> Measurements:
    """Steps of a trace folder, or of one steps table (.parquet or .csv) with our columns or vLLM's pass metrics.

    `read_trace` refuses a trace with one bad row, because a replay needs every row; a fit can do without, and says so.
    """
    table_path = _steps_path(path)
    table = read_table(table_path)
    foreign = FORWARD_PASS_METRICS.names["wall_s"] in table.columns and "wall_s" not in table.columns
    found = from_table(table, clock, FORWARD_PASS_METRICS if foreign else OURS, str(table_path))
    meta = read_meta(path / "meta.json") if path.is_dir() else {}
    digest = hashlib.sha256(table_path.read_bytes()).hexdigest()
    return replace(found, meta=meta, sources=(f"{path.name} sha256:{digest}",))


def _steps_path(path: Path) -> Path:
    if path.is_file():
        return path
    found = find_table(path, "steps") if path.is_dir() else None
    if found is None:
        what = "has no steps.parquet or steps.csv" if path.is_dir() else "does not exist"
        raise TraceError(f"{path} {what}; give a trace folder (as `engine bench` writes it) or a table of steps.")
    return found


def identity(meta: Mapping[str, Any]) -> dict[str, str | int | None]:
    """What must agree before one measurement speaks for another: hardware, model, parallelism; None where unknown."""

    def name(value: Any) -> str | None:
        found = value.get("name") if isinstance(value, Mapping) else value
        return str(found) if found else None

    degree = meta.get("tensor_parallel")
    return {
        "hardware": name(meta.get("hardware")),
        "model": name(meta.get("model")),
        "tensor_parallel": int(degree) if degree else None,
        "weight_dtype": name(meta.get("weight_dtype")),
    }


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The parts of two `identity` mappings that are known in both and differ."""
    return {
        key: (first[key], second[key])
        for key in first
        if first[key] is not None and second.get(key) is not None and first[key] != second[key]
    }


def join(parts: Sequence[Measurements]) -> Measurements:
    """Several traces of one model on one accelerator as one; raises TraceError where they are of different things."""
    first = parts[0]
    for other in parts[1:]:
        if other.clock != first.clock:
            raise TraceError(
                f"the trace {_called(first)} gives {first.clock}, {_called(other)} gives {other.clock}; choose "
                "one with --clock, or fit one profile for each."
            )
        if wrong := differences(identity(first.meta), identity(other.meta)):
            key, (one, two) = next(iter(wrong.items()))
            raise TraceError(
                f"the traces {_called(first)} and {_called(other)} differ in {key} ({one} and {two}); fit one profile "
                "for each."
            )
    unusable: dict[str, int] = {}
    for part in parts:
        for reason, count in part.unusable.items():
            unusable[reason] = unusable.get(reason, 0) + count
    runs = [np.full(len(part), index, dtype=np.int64) for index, part in enumerate(parts)]
    return replace(
        first,
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in WORK_COLUMNS},
        seconds=np.concatenate([part.seconds for part in parts]),
        runs=np.concatenate(runs),
        unusable=unusable,
        derived=frozenset().union(*(part.derived for part in parts)),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        sources=tuple(source for part in parts for source in part.sources),
    )


def _called(measurements: Measurements) -> str:
    return measurements.sources[0].split()[0] if measurements.sources else "without a name"


def from_works(works: Sequence[BatchWork], seconds: FloatArray) -> Measurements:
    """Steps whose composition and time are already known, as one run."""
    columns = {name: np.array([getattr(work, name) for work in works], dtype=np.float64) for name in WORK_COLUMNS}
    return Measurements(columns, seconds, np.zeros(len(works), dtype=np.int64))
