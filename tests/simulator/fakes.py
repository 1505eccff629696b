"""Step times and workloads that make a law easy to state."""

from dataclasses import dataclass

import numpy as np

from engine.core.workload import Workload, requests_of


@dataclass(frozen=True)
class ConstantStep:
    """Every step takes `step_s`."""

    step_s: float

    def seconds(self, work):
        return self.step_s

    def decode_run_seconds(self, work, k):
        return np.full(k, self.step_s)


@dataclass(frozen=True)
class LinearStep:
    """A step time with something of everything, whose sums are not exact in floating point."""

    fixed_s: float = 0.0031
    token_s: float = 0.000_17
    pair_s: float = 1.3e-6
    context_s: float = 0.7e-6

    def seconds(self, work):
        return (
            self.fixed_s
            + self.token_s * work.num_tokens
            + self.pair_s * work.prefill_attn_pairs
            + self.context_s * work.decode_kv_tokens
        )

    def decode_run_seconds(self, work, k):
        return np.array([self.seconds(work.after_decode_steps(i)) for i in range(k)])


class RecordedSteps:
    """Gives back the recorded wall times one by one, whatever the work."""

    def __init__(self, walls_s):
        self._left = iter(walls_s)

    def seconds(self, work):
        return next(self._left)

    def decode_run_seconds(self, work, k):
        raise AssertionError("recorded times are one a step; run without fast-forward")


def workload(arrival_s, prompt, output):
    """Requests at `arrival_s` with the given lengths, arrays or one number for all."""
    arrival_s = np.asarray(arrival_s, dtype=float)
    lengths = [np.broadcast_to(np.asarray(x, dtype=np.int64), arrival_s.shape) for x in (prompt, output)]
    return Workload(requests_of(arrival_s, *lengths))


class FirstTokens:
    """An observer that keeps each request's time to first token, in the order of their ends."""

    def __init__(self):
        self.ttft_s = []

    def on_steps(self, replica, run):
        """Steps are not asked for."""

    def on_gaps(self, gaps_s, count):
        """Gaps are not asked for."""

    def on_finish(self, job):
        self.ttft_s.append(job.first_token_s - job.arrival_s)
