"""How far predictions are from measurements: one table, by kind of pass, batch and context.

error = (predicted - measured) / measured            of a step
mape  = mean of |error|,  bias = mean of error,  total_error = (sum predicted - sum measured) / sum measured
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.measurements import REGIONS, Measurements
from roofline.step_time import FloatArray, StepTimeModel


@dataclass(frozen=True, slots=True)
class ErrorCell:
    """Errors of the steps of one cell; fractions, not percent. `method` says which steps were held out, and how."""

    method: str
    region: str  # "all", "decode", "prefill" or "mixed"
    cell: str  # "", or what narrows the region: "batch 16-31", "context 1024-2047", "prefill 512-1023 tokens"
    n: int
    mape: float
    bias: float
    total_error: float

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a profile and in `--json`."""
        return asdict(self)


def predicted_seconds(model: StepTimeModel, measurements: Measurements) -> FloatArray:
    """The model's time of every measured step, shape (steps,)."""
    return np.array([model.seconds(measurements.work(index)) for index in range(len(measurements))])


def error_cells(measurements: Measurements, predicted: FloatArray, method: str) -> tuple[ErrorCell, ...]:
    """The error table: all steps, each region, and each region by batch, context and prefill size."""
    regions = measurements.regions
    cells = [_cell(method, "all", "", measurements.seconds, predicted)]
    for index, region in enumerate(REGIONS):
        inside = regions == index
        if not inside.any():
            continue
        cells.append(_cell(method, region, "", measurements.seconds[inside], predicted[inside]))
        for name, octave in _octaves(measurements, region).items():
            for power in np.unique(octave[inside]):
                chosen = inside & (octave == power)
                cells.append(
                    _cell(method, region, _label(name, int(power)), measurements.seconds[chosen], predicted[chosen])
                )
    return tuple(cells)


def _octaves(measurements: Measurements, region: str) -> dict[str, NDArray[np.int64]]:
    """What narrows a region, as powers of two of each step's amount."""
    columns = measurements.columns
    result = {}
    if region != "prefill":
        result["batch"] = octave(columns["num_decode_seqs"])
        result["context"] = octave(columns["decode_kv_tokens"] / np.maximum(columns["num_decode_seqs"], 1.0))
    if region != "decode":
        result["prefill tokens"] = octave(columns["prefill_tokens"])
    return result


def octave(amounts: FloatArray) -> NDArray[np.int64]:
    """The power of two at or below each amount; 0 for amounts below 2."""
    return np.floor(np.log2(np.maximum(amounts, 1.0))).astype(np.int64)


def _label(name: str, power: int) -> str:
    low, high = 2**power, 2 ** (power + 1) - 1
    return f"{name} {low}" if low == high else f"{name} {low}-{high}"


def _cell(method: str, region: str, cell: str, seconds: FloatArray, predicted: FloatArray) -> ErrorCell:
    error = predicted / seconds - 1.0
    return ErrorCell(
        method, region, cell, len(seconds), float(np.abs(error).mean()), float(error.mean()),
        float(predicted.sum() / seconds.sum() - 1.0),
    )  # fmt: skip
