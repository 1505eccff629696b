"""Where a request's time goes: its TTFT and E2E divided into parts that sum to them, and what the tail is made of.

A pure function of a trace's requests, simulated or measured. A simulated trace also says when each request reached its
replica, when a preemption let it begin anew and for how long preemptions broke its answer off; where a trace does not,
those parts are 0 and their time is in the part after them.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from engine.core import metrics
from engine.core.trace import Trace
from engine.core.trace_meta import ClientLink, client_link
from roofline.step_time import FloatArray

Whole = Literal["ttft_s", "e2e_s"]
WHOLES: tuple[Whole, ...] = get_args(Whole)

# In the order in which a request goes through them; docs as people read them, and what would make each smaller.
TTFT_PARTS: dict[str, str] = {
    "retries": "attempts that came to nothing, and the pauses between them",
    "network": "on the way to the engine and back",
    "held": "before a replica took it: admission, or no replica up",
    "queue": "waiting in the replica's queue",
    "preemption": "from its first scheduling to its last: work that a preemption threw away, and waiting again",
    "prefill": "computing the prompt, beside others in the batch",
}
E2E_PARTS: dict[str, str] = TTFT_PARTS | {
    "transfer": "moving its KV cache between replicas",
    "interruption": "its answer broken off by a preemption, or waiting where its KV was sent, until the next token",
    "decode": "computing the answer, beside others in the batch",
}
KNOBS: dict[str, str] = {
    "retries": "fewer rejections and time-outs: more replicas, or longer pauses between attempts",
    "network": "a gateway nearer to the users; no setting of the engine helps",
    "held": "more replicas, started earlier, or a longer admission queue",
    "queue": "more replicas, or a larger engine.max_num_seqs where places are short and KV blocks are not",
    "preemption": "more KV blocks (fp8 KV, higher tensor parallelism, shorter max_model_len) or a watermark",
    "prefill": "higher tensor parallelism, a larger engine.max_num_batched_tokens, or prefix caching",
    "transfer": "a faster link between the replicas",
    "interruption": "more KV blocks, a lower engine.max_num_seqs, or a watermark",
    "decode": "higher tensor parallelism, narrower weights, or a lower engine.max_num_seqs",
}


@dataclass(frozen=True, slots=True)
class Attribution:
    """Mean seconds of each part of a latency: of all completed requests, and of those at or above a percentile."""

    metric: Whole
    percentile: float
    threshold_s: float  # the percentile's value: the tail begins here
    num_requests: int
    num_tail: int
    mean_s: dict[str, float]
    tail_s: dict[str, float]

    @property
    def largest(self) -> str:
        """The part that the tail owes most to, beyond what every request spends on it."""
        extra = {name: self.tail_s[name] - self.mean_s[name] for name in self.tail_s}
        return max(extra, key=extra.__getitem__)

    @property
    def knob(self) -> str:
        """What would make that part smaller."""
        return KNOBS[self.largest]


def parts(requests: pd.DataFrame, link: ClientLink | None = None) -> pd.DataFrame:
    """Seconds of every part of `E2E_PARTS` for each completed request, indexed as `requests`.

    The columns of `TTFT_PARTS` sum to TTFT and all of them to E2E, to within rounding.
    """
    link = link or ClientLink()
    done = requests[metrics.completed(requests)]
    sent_s = metrics.sent_s(done)
    attempt_s = _or(done, "attempt_s", sent_s)
    reach_s = _or(done, "reach_s", attempt_s + link.to_engine_s)
    scheduled_s = _or(done, "first_scheduled_s", reach_s)
    begun_s = _or(done, "resumed_s", scheduled_s)
    first_s, end_s = (done[name].to_numpy(dtype=float) for name in ("first_token_s", "finish_s"))
    none = np.zeros(len(done))
    interruption_s, transfer_s = _or(done, "interrupted_s", none), _or(done, "transfer_s", none)
    columns = {
        "retries": attempt_s - sent_s,
        "network": np.full(len(done), link.to_engine_s + link.to_client_s),
        "held": reach_s - attempt_s - link.to_engine_s,
        "queue": scheduled_s - reach_s,
        "preemption": begun_s - scheduled_s,
        "prefill": first_s - link.to_client_s - begun_s,
        "transfer": transfer_s,
        "interruption": interruption_s,
        "decode": end_s - first_s - interruption_s - transfer_s,
    }
    return pd.DataFrame(columns, index=done.index)


def attribution(trace: Trace, metric: Whole = "ttft_s", percentile: float = 99.0) -> Attribution | None:
    """The parts of a latency, in the mean and in the tail; None where no request completed."""
    divided = parts(trace.requests, client_link(trace))
    if divided.empty:
        return None
    names = list(TTFT_PARTS if metric == "ttft_s" else E2E_PARTS)
    of_all_s = metrics.ttft_s(trace.requests) if metric == "ttft_s" else metrics.e2e_s(trace.requests)
    whole_s = of_all_s[metrics.completed(trace.requests)]
    threshold_s = float(np.percentile(whole_s, percentile, method="higher"))
    tail = divided[whole_s >= threshold_s]
    means, in_tail = ({name: float(table[name].mean()) for name in names} for table in (divided, tail))
    return Attribution(metric, percentile, threshold_s, len(divided), len(tail), means, in_tail)


def _or(requests: pd.DataFrame, name: str, otherwise: FloatArray) -> FloatArray:
    """A column of seconds, and what to take where the trace does not say."""
    if name not in requests:
        return otherwise
    values: FloatArray = requests[name].to_numpy(dtype=float)
    return np.where(np.isnan(values), otherwise, values)
