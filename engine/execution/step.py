"""What the serving loop needs of whatever executes batches: launch one, collect its tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.core.batch import Batch
from engine.core.records import EAGER, UNKNOWN_S, StepKind
from engine.core.request import Request
from engine.execution.kv_cache import KVCache
from engine.execution.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Outcome:
    """The tokens of a step, row i for `sampled[i]`, and its seconds: on the device, and of the sampling where apart."""

    sampled: list[Request]
    tokens: NDArray[np.integer[Any]]
    device_s: float
    sample_s: float = UNKNOWN_S
    kind: StepKind = EAGER


class Executor(Protocol):
    """A model and its cache, executing batches in the order of their scheduling.

    Where `launches_ahead`, the batch after a launched one may be launched before that one is collected.
    """

    launches_ahead: bool
    cache: KVCache

    def launch(self, batch: Batch, sequences: Mapping[Request, Sequence]) -> Any:
        """Begin a batch; returns what `collect` wants."""
        ...

    def collect(self, step: Any, sequences: Mapping[Request, Sequence]) -> Outcome:
        """Finish it; steps are collected in the order of their launches."""
        ...
