"""A run as statistics in bounded memory: quantile sketches and sums instead of every latency.

The sketches are DDSketches: a quantile is within `RELATIVE_ACCURACY` of the true value, whatever the number of values.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from ddsketch import DDSketch

from simulator.fleet.job import FINISHED, Job
from simulator.output.observer import StepRun

RELATIVE_ACCURACY = 0.005
QUANTILES = (50, 90, 99)
BINS_PER_E = 1000  # values are binned by their logarithm before they are sketched: within 1 / (2 * BINS_PER_E)
BUFFERED = 8192


class LatencySketch:
    """One latency's distribution, in seconds; values are positive."""

    def __init__(self) -> None:
        self._sketch = DDSketch(RELATIVE_ACCURACY - 0.5 / BINS_PER_E)
        self._singles_s: list[float] = []
        self._values_s: list[float] = []
        self._counts: list[int] = []  # of each of `_values_s`
        self._total_s = 0.0

    def add(self, value_s: float) -> None:
        """One value."""
        self._singles_s.append(value_s)
        if len(self._singles_s) > BUFFERED:
            self._flush()

    def extend(self, values_s: Sequence[float], count: int) -> None:
        """`count` values of each of `values_s`."""
        self._values_s += values_s
        self._counts += [count] * len(values_s)
        if len(self._values_s) > BUFFERED:
            self._flush()

    def _flush(self) -> None:
        """Sketch what is buffered, values of one bin together: adding to a sketch costs a microsecond a call."""
        if not (self._singles_s or self._values_s):
            return
        values_s = np.array(self._singles_s + self._values_s)
        counts = np.array([1] * len(self._singles_s) + self._counts)
        self._total_s += float(values_s @ counts)
        bins, inverse = np.unique(np.rint(np.log(values_s) * BINS_PER_E), return_inverse=True)
        weights = np.bincount(inverse, counts)
        for value_s, weight in zip(np.exp(bins / BINS_PER_E).tolist(), weights.tolist(), strict=True):
            self._sketch.add(value_s, weight)
        self._singles_s, self._values_s, self._counts = [], [], []

    @property
    def count(self) -> int:
        """Values so far."""
        self._flush()
        return int(self._sketch.count)

    def quantile(self, q: float) -> float | None:
        """The value below which a fraction `q` of the values lie; None without values."""
        self._flush()
        value: float | None = self._sketch.get_quantile_value(q)
        return value

    def summary(self) -> dict[str, float] | None:
        """Mean and percentiles under the names of `metrics.latency_summary`; None without values."""
        if not self.count:
            return None
        points = {f"p{p}": float(self.quantile(p / 100) or 0.0) for p in QUANTILES}
        return {"mean": self._total_s / self.count, **points}


class StreamingStats:
    """An observer that keeps the figures of `metrics.summarize` and nothing that grows with the run."""

    def __init__(self) -> None:
        self.ttft, self.tpot, self.itl, self.e2e = (LatencySketch() for _ in range(4))
        self.num_steps = 0
        self.num_requests = 0  # finished
        self.unfinished: Counter[str] = Counter()  # the others, by how they ended
        self.num_preemptions = 0
        self.output_tokens = 0
        self._first_sent_s = float("inf")
        self._last_end_s = float("-inf")

    def on_steps(self, replica: int, run: StepRun) -> None:
        """Count the steps."""
        self.num_steps += len(run.walls_s)

    def on_gaps(self, gaps_s: Sequence[float], count: int) -> None:
        """Inter-token latencies."""
        self.itl.extend(gaps_s, count)

    def on_finish(self, job: Job) -> None:
        """The latencies of one request, if it finished."""
        if job.finish_reason != FINISHED:
            self._note_unfinished(job)
            return
        sent_s = job.arrival_s if job.send_s != job.send_s else job.send_s  # NaN: sent when it arrived
        self.ttft.add(job.first_token_s - sent_s)
        self.e2e.add(job.finish_s - sent_s)
        if job.output_tokens > 1:
            self.tpot.add((job.finish_s - job.first_token_s) / (job.output_tokens - 1))
        self.num_requests += 1
        self.num_preemptions += job.request.num_preemptions
        self.output_tokens += job.output_tokens
        self._first_sent_s = min(self._first_sent_s, sent_s)
        self._last_end_s = max(self._last_end_s, job.finish_s)

    def _note_unfinished(self, job: Job) -> None:
        self.unfinished[str(job.finish_reason)] += 1
        self.num_preemptions += job.request.num_preemptions
        self._first_sent_s = min(self._first_sent_s, job.arrival_s if job.send_s != job.send_s else job.send_s)
        self._last_end_s = max(self._last_end_s, job.finish_s)

    def summary(self) -> dict[str, Any]:
        """The same figures as `metrics.summarize`, percentiles within `RELATIVE_ACCURACY`."""
        makespan_s = self._last_end_s - self._first_sent_s
        known = self.num_requests > 0 and makespan_s > 0
        return {
            "ttft_s": self.ttft.summary(), "tpot_s": self.tpot.summary(),
            "itl_s": self.itl.summary(), "e2e_s": self.e2e.summary(),
            "request_throughput": self.num_requests / makespan_s if known else None,
            "output_throughput": self.output_tokens / makespan_s if known else None,
            "makespan_s": makespan_s if known else None,
            "num_requests": self.num_requests + self.unfinished.total(), "num_steps": self.num_steps,
            "num_preemptions": self.num_preemptions,
        }  # fmt: skip
