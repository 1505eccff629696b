"""What watches a run. The fleet tells an observer and knows nothing of traces, sketches or figures."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from engine.core.batch import Batch
from simulator.fleet.job import Job


class StepOccupancy(NamedTuple):
    """What a replica held in each of some steps; the lists have an entry a step."""

    kv_blocks_used: list[int]
    num_waiting: list[int]


class StepRun(NamedTuple):
    """Consecutive steps of one replica, the first being `batch`.

    More than one means plain decode steps: the same requests, contexts growing by a token a step. `occupancy()` is
    worked out when it is asked for, and may be asked only while `on_steps` runs: the replica goes on afterwards.
    """

    batch: Batch
    start_s: float
    walls_s: list[float]  # an entry a step
    occupancy: Callable[[], StepOccupancy]


class Observer(Protocol):
    """Told of everything once it has happened, in order of time within a replica."""

    def on_steps(self, replica: int, run: StepRun) -> None:
        """A replica has done one step or several alike."""

    def on_gaps(self, gaps_s: Sequence[float], count: int) -> None:
        """`count` inter-token gaps of each length in `gaps_s`."""

    def on_finish(self, job: Job) -> None:
        """A request has ended; its times are the client's."""
