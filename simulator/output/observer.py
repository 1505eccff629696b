"""What watches a run. The fleet tells an observer and knows nothing of traces, sketches or figures."""

from collections.abc import Sequence
from typing import Protocol

from engine.core.batch import Batch
from roofline.step_time import FloatArray
from simulator.fleet.job import Job


class Observer(Protocol):
    """Told of everything once it has happened, in order of time within a replica."""

    def on_steps(
        self, replica: int, batch: Batch, start_s: float, walls_s: FloatArray, kv_blocks_used: Sequence[int]
    ) -> None:
        """`len(walls_s)` consecutive steps from `start_s`, the first being `batch`, with the KV blocks each uses.

        More than one means plain decode steps: the same requests, contexts growing by a token a step.
        """

    def on_gaps(self, gaps_s: FloatArray, count: int) -> None:
        """`count` inter-token gaps of each length in `gaps_s`."""

    def on_finish(self, job: Job) -> None:
        """A request has ended; its times are the client's."""
