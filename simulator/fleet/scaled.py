"""A step-time model made slower or faster as a whole."""

from dataclasses import dataclass

from roofline.step_time import BatchWork, FloatArray, StepTimeModel


@dataclass(frozen=True, slots=True)
class ScaledStepTime:
    """Another model's times multiplied by a factor: a common error of all of them, or a replica that is slow."""

    model: StepTimeModel
    factor: float

    def seconds(self, work: BatchWork) -> float:
        """Wall time of one pass."""
        return self.factor * self.model.seconds(work)

    def decode_run_seconds(self, work: BatchWork, k: int) -> FloatArray:
        """Times of `k` consecutive decode passes."""
        return self.factor * self.model.decode_run_seconds(work, k)
