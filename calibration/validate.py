"""A profile held against a trace it was not fitted on: errors by kind of pass, and how much of it is extrapolation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.accuracy import ErrorCell, error_cells, predicted_seconds
from calibration.fitted import FittedStepTime
from calibration.measurements import Measurements
from calibration.profile import Badge, check_compatible, unstated
from roofline.step_time import FloatArray

METHOD = "another trace"


@dataclass(frozen=True, slots=True, eq=False)
class Validation:
    """Predicted beside measured for every usable step of a trace."""

    measurements: Measurements
    predicted: FloatArray  # seconds, shape (steps,)
    badge: Badge
    errors: tuple[ErrorCell, ...]
    notes: tuple[str, ...]
    in_range: float  # fraction of the steps inside the profile's calibrated range

    def as_json(self) -> dict[str, Any]:
        """The document of `calibration validate --json`; times in seconds, errors as fractions."""
        return {
            "badge": self.badge,
            "steps": len(self.measurements),
            "unusable": self.measurements.unusable,
            "in_range": self.in_range,
            "measured_total_s": float(self.measurements.seconds.sum()),
            "predicted_total_s": float(self.predicted.sum()),
            "errors": [cell.as_dict() for cell in self.errors],
            "notes": list(self.notes),
        }


def validate(profile: FittedStepTime, measurements: Measurements, transfer: bool = False) -> Validation:
    """Compare; raises ProfileError where the profile is of something else and no transfer was asked for."""
    badge = check_compatible(profile, measurements.meta, transfer)
    predicted = predicted_seconds(profile, measurements)
    inside = np.array([profile.in_range(measurements.work(index)) for index in range(len(measurements))])
    notes = measurements.notes
    if unknown := unstated(profile, measurements.meta):
        notes += (f"Not compared, as the profile or the trace does not state it: {', '.join(unknown)}.",)
    return Validation(
        measurements, predicted, badge, error_cells(measurements, predicted, METHOD), notes, float(inside.mean())
    )
