"""A run over time: running, waiting, cache use, preemptions and tokens, in stretches of equal length.

`timeline` is a pure function of a trace's steps, simulated or measured; `TimelineObserver` builds the same while a run
goes on, in memory that does not grow with it. Both integrate step by step, so nothing is lost between stretches: the
sums over the stretches are the run's totals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from roofline.step_time import FloatArray
from simulator.fleet.job import Job
from simulator.output.observer import StepRun

STRETCHES = 256
BUFFERED = 4096  # runs of steps between two additions to the stretches
LEVELS = ("running", "waiting", "kv_blocks")  # held over time: a stretch shows their mean
COUNTS = ("preemptions", "prefill_tokens", "decode_tokens", "steps", "busy_s")  # summed: a stretch shows their total


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Arrays of one value a stretch, over all replicas together; stretch i lasts from edges_s[i] to edges_s[i + 1]."""

    edges_s: FloatArray
    running: FloatArray  # requests, mean over the stretch; none while a replica is idle
    waiting: FloatArray
    kv_use: FloatArray  # fraction of all replicas' blocks, mean
    preemptions: FloatArray  # number in the stretch; spread over the steps that it begins within
    prefill_tokens: FloatArray
    decode_tokens: FloatArray
    steps: FloatArray
    busy: FloatArray  # fraction of the replicas' time with a pass under way

    @property
    def centres_s(self) -> FloatArray:
        """The middle of each stretch."""
        return (self.edges_s[1:] + self.edges_s[:-1]) / 2

    def table(self) -> pd.DataFrame:
        """A row a stretch, as CSV shows it."""
        columns = {name: getattr(self, name) for name in self.__slots__ if name != "edges_s"}
        return pd.DataFrame({"begin_s": self.edges_s[:-1], "end_s": self.edges_s[1:], **columns})


def timeline(steps: pd.DataFrame, stretches: int = STRETCHES) -> Timeline:
    """The timeline of a trace's steps table; of no stretch where it has no steps."""
    if steps.empty:
        empty = np.empty(0)
        return Timeline(np.zeros(1), *[empty] * 8)
    end_s = float((steps["start_s"] + steps["wall_s"]).max())
    edges_s = np.linspace(min(0.0, float(steps["start_s"].min())), end_s, stretches + 1, dtype=np.float64)
    sums = dict.fromkeys((*LEVELS, *COUNTS), np.zeros(stretches))
    names = steps["replica"] if "replica" in steps else pd.Series(0, index=steps.index)
    for _, own in steps.groupby(names):
        ordered = own.sort_values("start_s", kind="stable")
        for name, added in _added(edges_s, _columns(ordered)).items():
            sums[name] = sums[name] + added
    return _timeline(edges_s, sums, int(names.nunique()), float(steps["kv_blocks_total"].max()))


class TimelineObserver:
    """An observer that keeps a timeline of at most `stretches` stretches: they double in length as the run grows."""

    def __init__(self, kv_blocks_total: int, stretches: int = STRETCHES) -> None:
        self._kv_blocks_total = kv_blocks_total
        self._width_s = 1e-3
        self._sums = {name: np.zeros(stretches) for name in (*LEVELS, *COUNTS)}
        self._rows: dict[int, list[tuple[float, ...]]] = {}
        self._buffered = 0
        self._end_s = 0.0

    def on_steps(self, replica: int, run: StepRun) -> None:
        """Note some steps alike as one stretch of time; their cache use is the mean of the first and the last."""
        batch, (used, waiting), wall_s = run.batch, run.occupancy(), sum(run.walls_s)
        count, work = len(run.walls_s), batch.work
        self._rows.setdefault(replica, []).append(
            (
                run.start_s, wall_s, batch.num_running, sum(waiting) / count, (used[0] + used[-1]) / 2,
                len(batch.preempted), work.prefill_tokens, work.decode_tokens * count, count, wall_s,
            )
        )  # fmt: skip
        self._end_s = max(self._end_s, run.start_s + wall_s)
        self._buffered += 1
        if self._buffered >= BUFFERED:
            self._flush()

    def on_gaps(self, gaps_s: Sequence[float], count: int) -> None:
        """Gaps are not asked for."""

    def on_finish(self, job: Job) -> None:
        """Requests are not asked for."""

    def timeline(self) -> Timeline:
        """The run so far."""
        self._flush()
        if not self._rows:
            return timeline(pd.DataFrame())
        used = int(np.ceil(self._end_s / self._width_s))
        sums = {name: values[:used] for name, values in self._sums.items()}
        return _timeline(self._width_s * np.arange(used + 1.0), sums, len(self._rows), float(self._kv_blocks_total))

    def _flush(self) -> None:
        stretches = len(self._sums["steps"])
        while self._end_s > self._width_s * stretches:
            self._width_s *= 2
            for name, values in self._sums.items():
                pairs = np.append(values, np.zeros(stretches % 2)).reshape(-1, 2).sum(axis=1)
                self._sums[name] = np.append(pairs, np.zeros(stretches - len(pairs)))
        edges_s = self._width_s * np.arange(stretches + 1.0)
        for replica, rows in self._rows.items():
            if rows:
                columns = dict(zip(("start_s", "wall_s", *LEVELS, *COUNTS), np.array(rows).T, strict=True))
                for name, added in _added(edges_s, columns).items():
                    self._sums[name] += added
                self._rows[replica] = []
        self._buffered = 0


def _columns(steps: pd.DataFrame) -> dict[str, FloatArray]:
    """A steps table under this module's names; a column that the trace does not have counts as 0."""
    names = {
        "start_s": "start_s", "wall_s": "wall_s", "running": "num_running", "waiting": "num_waiting",
        "kv_blocks": "kv_blocks_used", "preemptions": "num_preempted", "prefill_tokens": "prefill_tokens",
        "decode_tokens": "decode_tokens", "busy_s": "wall_s",
    }  # fmt: skip
    zeros = np.zeros(len(steps))
    found = {name: steps[theirs].to_numpy(dtype=float) if theirs in steps else zeros for name, theirs in names.items()}
    return found | {"steps": np.ones(len(steps))}


def _added(edges_s: FloatArray, columns: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """What one replica's steps, in order of time, add to each stretch: levels times seconds, and counts.

    The running integral of each is a line over a step and flat between steps; its rise over a stretch is the answer.
    """
    start_s, wall_s = columns["start_s"], columns["wall_s"]
    knots_s = np.column_stack([start_s, start_s + wall_s]).ravel()
    added = {}
    for name in (*LEVELS, *COUNTS):
        risen = np.cumsum(columns[name] * wall_s if name in LEVELS else columns[name])
        heights = np.column_stack([np.append(0.0, risen[:-1]), risen]).ravel()
        added[name] = np.diff(np.interp(edges_s, knots_s, heights, left=0.0, right=float(risen[-1])))
    return added


def _timeline(edges_s: FloatArray, sums: dict[str, FloatArray], replicas: int, blocks: float) -> Timeline:
    width_s = np.diff(edges_s)
    return Timeline(
        edges_s=edges_s, running=sums["running"] / width_s, waiting=sums["waiting"] / width_s,
        kv_use=sums["kv_blocks"] / width_s / (replicas * max(blocks, 1.0)), preemptions=sums["preemptions"],
        prefill_tokens=sums["prefill_tokens"], decode_tokens=sums["decode_tokens"], steps=sums["steps"],
        busy=sums["busy_s"] / width_s / replicas,
    )  # fmt: skip
