"""A run as statistics in bounded memory: quantile sketches and sums instead of every latency.

The sketches are DDSketches: a quantile is within `RELATIVE_ACCURACY` of the true value, whatever the number of values.
"""

from typing import Any

from ddsketch import DDSketch

from roofline.step_time import FloatArray
from simulator.fleet.job import Job
from simulator.output.observer import StepRun

RELATIVE_ACCURACY = 0.005
QUANTILES = (50, 90, 99)


class LatencySketch:
    """One latency's distribution, in seconds."""

    def __init__(self) -> None:
        self._sketch = DDSketch(RELATIVE_ACCURACY)

    def add(self, value_s: float, count: int = 1) -> None:
        """`count` values of `value_s`."""
        self._sketch.add(value_s, count)

    @property
    def count(self) -> int:
        """Values so far."""
        return int(self._sketch.count)

    def quantile(self, q: float) -> float | None:
        """The value below which a fraction `q` of the values lie; None without values."""
        value: float | None = self._sketch.get_quantile_value(q)
        return value

    def summary(self) -> dict[str, float] | None:
        """Mean and percentiles under the names of `metrics.latency_summary`; None without values."""
        if not self.count:
            return None
        points = {f"p{p}": float(self.quantile(p / 100) or 0.0) for p in QUANTILES}
        return {"mean": float(self._sketch.sum / self._sketch.count), **points}


class StreamingStats:
    """An observer that keeps the figures of `metrics.summarize` and nothing that grows with the run."""

    def __init__(self) -> None:
        self.ttft, self.tpot, self.itl, self.e2e = (LatencySketch() for _ in range(4))
        self.num_steps = 0
        self.num_requests = 0
        self.num_preemptions = 0
        self.output_tokens = 0
        self._first_sent_s = float("inf")
        self._last_end_s = float("-inf")

    def on_steps(self, replica: int, run: StepRun) -> None:
        """Count the steps."""
        self.num_steps += len(run)

    def on_gaps(self, gaps_s: FloatArray, count: int) -> None:
        """Inter-token latencies."""
        for gap_s in gaps_s.tolist():
            self.itl.add(gap_s, count)

    def on_finish(self, job: Job) -> None:
        """The latencies of one request."""
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
            "num_requests": self.num_requests, "num_steps": self.num_steps, "num_preemptions": self.num_preemptions,
        }  # fmt: skip
