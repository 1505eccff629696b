"""What the engine knows of a request and the scheduler does not: its token ids and how the next one is chosen."""

from collections.abc import Hashable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from engine.core.request import Request
from engine.core.sampling_params import SamplingParams

# One record a request, copied into the batch's rows: `guarded_until` is the first position at which an end may be
# sampled.
SETTINGS = np.dtype(
    [
        ("temperature", np.float32),
        ("top_k", np.int32),
        ("top_p", np.float32),
        ("min_p", np.float32),
        ("seed", np.uint64),
        ("guarded_until", np.int64),
    ]
)


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one request: prompt and output so far.

    `end_ids` end it when sampled. `settings` is its record of `SETTINGS`.
    """

    request: Request
    params: SamplingParams
    token_ids: list[int]
    end_ids: frozenset[int]
    settings: np.void = field(init=False)

    def __post_init__(self) -> None:
        params, prompt = self.params, self.request.num_prompt_tokens
        assert params.seed is not None
        temperature = 0.0 if params.is_greedy else params.temperature
        values = (temperature, params.top_k, params.top_p, params.min_p, params.seed, prompt + params.min_tokens)
        self.settings = np.array(values, SETTINGS)[()]

    @property
    def output_ids(self) -> list[int]:
        """Tokens generated so far."""
        return self.token_ids[self.request.num_prompt_tokens :]

    def extend_keys(self, block_size: int) -> None:
        """Name every full block of the tokens known so far that has no key yet."""
        keys = self.request.block_keys
        for start in range(len(keys) * block_size, len(self.token_ids) - block_size + 1, block_size):
            keys.append(block_key(keys[-1] if keys else b"", self.token_ids[start : start + block_size]))


def block_key(previous: Hashable, token_ids: Tokens[int]) -> bytes:
    """The name of a block's content and of everything before it, the same in every process."""
    assert isinstance(previous, bytes)
    return blake2b(previous + np.asarray(token_ids, np.uint32).tobytes(), digest_size=16).digest()
