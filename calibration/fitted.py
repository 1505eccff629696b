"""A step-time model learnt from measurements, with everything needed to decide whether to trust it.

`FittedStepTime` is a `StepTimeModel`. It carries the range of work it was measured on, the spread of its errors (a
simulator can draw noise from it), where the measurements came from, and its own table of held-out errors. `profile.py`
reads and writes it.
"""

from dataclasses import dataclass, field
from typing import Any

from calibration.accuracy import ErrorCell
from calibration.form import StepTimeForm
from roofline.step_time import BatchWork, FloatArray

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LAGS = (1, 2, 5, 10, 50)
RANGE_SLACK = 1.1  # the form is physical: a tenth beyond the measurements is no extrapolation
RANGE_AMOUNTS = (
    "prefill_tokens", "prefill_attn_pairs", "prefill_kv_tokens", "num_decode_seqs", "decode_tokens", "decode_kv_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ValidRange:
    """The largest amounts measured, by kind of pass ("decode", "prefill", "mixed"); a kind never seen has no entry."""

    largest: dict[str, dict[str, float]]

    def contains(self, work: BatchWork) -> bool:
        """True where a pass of this kind was measured with at least about this much of every amount."""
        largest = self.largest.get(region_of(work))
        return largest is not None and all(
            getattr(work, name) <= limit * RANGE_SLACK for name, limit in largest.items()
        )


@dataclass(frozen=True, slots=True)
class ResidualStats:
    """Spread of measured / predicted - 1 over n steps.

    `quantiles` are at `QUANTILES`; `autocorrelation` is at the lags of `LAGS` within a run (a
    machine's drift is no white noise), None where the runs are too short to tell.
    """

    n: int
    mean: float
    std: float
    quantiles: tuple[float, ...]
    autocorrelation: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a profile comes from. Unknown names are None; `fitted_at` is an ISO date and time, UTC."""

    hardware: str | None
    model: str | None
    tensor_parallel: int | None
    weight_dtype: str | None
    clock: str
    fitted_at: str
    sources: tuple[str, ...] = ()
    engine: dict[str, Any] = field(default_factory=dict)
    engine_config: dict[str, Any] = field(default_factory=dict)
    software: dict[str, Any] = field(default_factory=dict)
    licence: str | None = None
    attribution: str | None = None

    @property
    def subject(self) -> str:
        """What was measured, in words."""
        return f"{self.model or 'unnamed model'} on {self.hardware or 'unnamed hardware'}"

    @property
    def identity(self) -> dict[str, str | int | None]:
        """What must agree with a trace: see `measurements.identity`."""
        return {name: getattr(self, name) for name in ("hardware", "model", "tensor_parallel", "weight_dtype")}


@dataclass(frozen=True, slots=True)
class RowCount:
    """What became of the measured rows: used, unusable by reason, and outliers with their share of the time."""

    used: int
    unusable: dict[str, int]
    outliers: int
    outlier_time_share: float


@dataclass(frozen=True, slots=True)
class FittedStepTime:
    """Step times from a physical form whose costs were measured.

    Beyond `valid_range` the form is followed as it stands, because its terms are the roofline's; `in_range` says so.
    """

    form: StepTimeForm
    valid_range: ValidRange
    residuals: dict[str, ResidualStats]  # by region, and "all"
    provenance: Provenance
    errors: tuple[ErrorCell, ...]
    rows: RowCount
    notes: tuple[str, ...] = ()

    def seconds(self, work: BatchWork) -> float:
        """Wall time of one pass; `work` has at least one token."""
        return self.form.seconds(work)

    def decode_run_seconds(self, work: BatchWork, k: int) -> FloatArray:
        """Times of `k` >= 1 consecutive decode passes, the first being `work`; the same floats as `seconds`."""
        return self.form.decode_run_seconds(work, k)

    def in_range(self, work: BatchWork) -> bool:
        """True where the prediction rests on measurements, False where it extrapolates."""
        return self.valid_range.contains(work)

    def error(self, method: str, region: str = "all") -> ErrorCell | None:
        """The table's row for a whole region, None where it has none."""
        return next((c for c in self.errors if (c.method, c.region, c.cell) == (method, region, "")), None)


def region_of(work: BatchWork) -> str:
    """The kind of a pass."""
    if work.num_prefill_seqs and work.num_decode_seqs:
        return "mixed"
    return "prefill" if work.num_prefill_seqs else "decode"
