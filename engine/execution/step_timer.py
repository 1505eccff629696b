"""When the device is done with a step, and how long it took: by CUDA events, or by the host's clock."""

from time import perf_counter
from typing import Protocol

import torch


class StepTimer(Protocol):
    """One step's time on the device."""

    def start(self) -> None:
        """Mark the beginning of the step among what is sent to the device."""
        ...

    def stop(self) -> None:
        """Mark its end."""
        ...

    def wait(self) -> float:
        """Wait until the device has reached the end; returns the seconds between the marks."""
        ...


class CudaTimer:
    """Events on the current stream."""

    def __init__(self) -> None:
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def start(self) -> None:
        """See `StepTimer`."""
        self._start.record()

    def stop(self) -> None:
        """See `StepTimer`."""
        self._end.record()

    def wait(self) -> float:
        """See `StepTimer`."""
        self._end.synchronize()
        return self._start.elapsed_time(self._end) / 1e3


class HostTimer:
    """For a device that computes as it is told, the CPU."""

    def __init__(self) -> None:
        self._start_s = self._end_s = 0.0

    def start(self) -> None:
        """See `StepTimer`."""
        self._start_s = perf_counter()

    def stop(self) -> None:
        """See `StepTimer`."""
        self._end_s = perf_counter()

    def wait(self) -> float:
        """See `StepTimer`."""
        return self._end_s - self._start_s


def step_timer(device: torch.device) -> StepTimer:
    """The timer of a device."""
    return CudaTimer() if device.type == "cuda" else HostTimer()
