"""The composition of one forward pass, and the contract of everything that says how long one takes.

`BatchWork` is what the scheduler decided, in numbers; a `StepTimeModel` turns it into seconds. The analytic roofline, a
fitted profile and the recorded times of a trace all implement it, and the simulator knows no other way to spend time.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class BatchWork(NamedTuple):
    """One forward pass in numbers; the names are the columns of `steps.parquet`.

    A prefill chunk of n tokens on top of c tokens already in the cache computes n * c + n * (n + 1) / 2 query-key
    pairs. A decoding sequence computes one token (more when speculating) against its whole cached context.
    """

    num_prefill_seqs: int = 0
    prefill_tokens: int = 0
    prefill_kv_tokens: int = 0  # context already in the cache, summed over the chunks
    prefill_attn_pairs: int = 0  # query-key pairs the chunks compute
    num_decode_seqs: int = 0
    decode_tokens: int = 0  # more than num_decode_seqs when speculating
    decode_kv_tokens: int = 0  # context already in the cache, summed over the decoding sequences
    decode_kv_max: int = 0  # the longest of those contexts

    @property
    def num_seqs(self) -> int:
        """Sequences in the pass."""
        return self.num_prefill_seqs + self.num_decode_seqs

    @property
    def num_tokens(self) -> int:
        """Tokens that pass through the linear layers."""
        return self.prefill_tokens + self.decode_tokens

    def after_decode_steps(self, steps: int) -> "BatchWork":
        """The same decoding sequences `steps` steps later: every context has grown by one token a step."""
        return BatchWork(
            self.num_prefill_seqs,
            self.prefill_tokens,
            self.prefill_kv_tokens,
            self.prefill_attn_pairs,
            self.num_decode_seqs,
            self.decode_tokens,
            self.decode_kv_tokens + steps * self.num_decode_seqs,
            self.decode_kv_max + steps,
        )


def chunk_attn_pairs(num_tokens: int, cached_tokens: int) -> int:
    """Query-key pairs of a causal prefill chunk of `num_tokens` on top of `cached_tokens`."""
    return num_tokens * cached_tokens + num_tokens * (num_tokens + 1) // 2


class StepTimeModel(Protocol):
    """How long a forward pass takes, in seconds of wall time.

    Both methods are pure. Results are positive, finite and non-decreasing in every amount of work. `tests/roofline/
    step_time_laws.py` holds the laws and runs on every implementation.
    """

    def seconds(self, work: BatchWork) -> float:
        """Wall time of one pass; `work` has at least one token."""
        ...

    def decode_run_seconds(self, work: BatchWork, k: int) -> FloatArray:
        """Times of `k` >= 1 consecutive decode passes, the first being `work` (no prefill in it).

        Element i equals `seconds(work.after_decode_steps(i))`.
        """
        ...
