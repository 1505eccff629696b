"""Headline figures of measured traces: what targets.json asks for, and the capacity that loads are fractions of."""

from typing import Any

import numpy as np
import pandas as pd

from engine.bench.attainment import Shares

TARGET_CONTEXT, CONTEXT_SLACK = 1024, 0.25  # decode points count whose mean context is that near
_TARGET_BATCHES = (1, 16, 64, 128, 256)
_TARGET_CHUNK = 2048


def step_figures(steps: pd.DataFrame, label: str) -> dict[str, float]:
    """Seconds of decode steps near a context of 1k by batch, prefill rate, and wall time beyond the device's.

    Step times are the device's, by events, where they are known; the figures of a point that was not measured are
    left out.
    """
    found: dict[str, float] = {}
    for batch in _TARGET_BATCHES:
        row = _decode_row(steps, batch)
        if row is not None:
            found[f"decode_step_{label}_{batch}"] = _device_s(row)
            if not np.isnan(row["device_s"]):
                found[f"host_work_{label}_{batch}"] = max(0.0, float(row["wall_s"] - row["device_s"]))
    alone = steps[
        (steps["num_decode_seqs"] == 0) & (steps["num_prefill_seqs"] == 1) & (steps["prefill_kv_tokens"] == 0)
    ]
    chunk = alone[alone["prefill_tokens"] == _TARGET_CHUNK]
    if len(chunk):
        found[f"prefill_{label}_{_TARGET_CHUNK}"] = _TARGET_CHUNK / _device_s(chunk.iloc[0])
    return found


def exposed_host_s(steps: pd.DataFrame) -> float | None:
    """Median wall time of the pure decode steps beyond the device's: the host's work that nothing hides.

    None where the device's time is not known.
    """
    decodes = steps[(steps["num_prefill_seqs"] == 0) & (steps["num_decode_seqs"] > 0) & steps["device_s"].notna()]
    if decodes.empty:
        return None
    return float((decodes["wall_s"] - decodes["device_s"]).clip(lower=0).median())


def utilisation_figures(share: Shares) -> dict[str, Any]:
    """MBU and MFU against the measured ceilings and the vendor's."""
    vendor = share.datasheet
    return {
        "mbu": share.measured.mbu,
        "mfu": share.measured.mfu,
        "mbu_datasheet": None if vendor is None else vendor.mbu,
        "mfu_datasheet": None if vendor is None else vendor.mfu,
    }


def capacity_per_s(requests: pd.DataFrame) -> float:
    """Requests a second that an engine finishes while it has all it can hold, from requests sent at once.

    Between the ends of the first and of the last quarter of them: before that the batch fills, after it it drains.
    """
    ends = np.sort(requests["finish_s"].dropna().to_numpy())
    assert len(ends) >= 2, "a burst has at least two requests"
    low, high = len(ends) // 4, 3 * len(ends) // 4
    span_s = float(ends[high] - ends[low])
    if span_s > 0:
        return (high - low) / span_s
    return float(len(ends) / (ends[-1] - requests["arrival_s"].min()))


def _decode_row(steps: pd.DataFrame, batch: int) -> "pd.Series[Any] | None":
    """The pure decode step of that batch whose mean context is nearest to the target's."""
    rows = steps[(steps["num_prefill_seqs"] == 0) & (steps["num_decode_seqs"] == batch)]
    if rows.empty:
        return None
    off = (rows["decode_kv_tokens"] / batch / TARGET_CONTEXT - 1).abs()
    return rows.loc[off.idxmin()] if off.min() <= CONTEXT_SLACK else None


def _device_s(row: "pd.Series[Any]") -> float:
    return float(row["wall_s"] if np.isnan(row["device_s"]) else row["device_s"])
