"""A workload: which requests arrive when, how long their prompts and answers are, and which prefixes they share.

Synthetic ones are pure functions of a seed, with one random stream a purpose; workload_files.py reads recorded ones.
The engine's bench and the simulator run the same object.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.core.arrivals import ArrivalProcess
from engine.core.config import EngineConfig
from engine.core.lengths import LengthDistribution
from roofline.errors import CapacityError, InputError

IntArray = NDArray[np.int64]
WORKLOAD_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "max_tokens", "session_id", "priority")


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests in order of arrival.

    `requests` has the columns `WORKLOAD_COLUMNS`: seconds, tokens (at least 1), a session or None, a priority (lower
    is served first). `block_keys[i]` names the successive blocks of `key_block_size` tokens of request i's prompt, the
    last of them perhaps partial; equal keys mean the same block after the same prefix. None: no prompt shares anything.
    `description` goes into a trace's `meta.json`.
    """

    requests: pd.DataFrame
    block_keys: tuple[IntArray, ...] | None = None
    key_block_size: int = 0
    description: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.requests)

    def keys(self, index: int, block_size: int) -> list[Hashable]:
        """Keys of request `index`'s full prompt blocks of `block_size` tokens; empty where prompts share nothing."""
        if self.block_keys is None:
            return []
        prompt_tokens = int(self.requests["prompt_tokens"].to_numpy()[index])
        return list(convert_keys(self.block_keys[index], self.key_block_size, block_size, prompt_tokens).tolist())

    def head(self, count: int) -> "Workload":
        """The first `count` requests."""
        return self._rows(slice(0, count))

    def before(self, time_s: float) -> "Workload":
        """The requests that arrive before `time_s`."""
        return self.head(int(np.searchsorted(self.requests["arrival_s"].to_numpy(), time_s)))

    def with_arrivals(self, arrival_s: NDArray[np.float64]) -> "Workload":
        """The same requests in the same order at other times; `arrival_s` has one time a request, sorted."""
        return replace(self, requests=self.requests.assign(arrival_s=arrival_s))

    def _rows(self, rows: slice) -> "Workload":
        keys = None if self.block_keys is None else self.block_keys[rows]
        return replace(self, requests=self.requests.iloc[rows].reset_index(drop=True), block_keys=keys)


@dataclass(frozen=True, slots=True)
class SyntheticWorkload:
    """Independent prompt and output lengths under an arrival process, as many as `num_requests` or fit `duration_s`."""

    arrivals: ArrivalProcess
    prompt: LengthDistribution
    output: LengthDistribution
    num_requests: int | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        check_extent(self.num_requests, self.duration_s)

    def generate(self, seed: int) -> Workload:
        """The workload of this seed: same seed, same bytes; each purpose draws from its own stream."""
        arrival_rng, prompt_rng, output_rng = np.random.default_rng(seed).spawn(3)
        arrival_s = draw_arrivals(self.arrivals, arrival_rng, self.num_requests, self.duration_s)
        count = arrival_s.size
        if count == 0:
            raise InputError(f"no request arrives within {self.duration_s} s; raise the duration or the request rate.")
        requests = requests_of(arrival_s, self.prompt.draw(prompt_rng, count), self.output.draw(output_rng, count))
        return Workload(requests, description={"kind": "synthetic", **_describe(self), "rows": count})


def resample(table: pd.DataFrame, arrival_s: NDArray[np.float64], rng: np.random.Generator) -> pd.DataFrame:
    """Requests whose (prompt, output) pairs are drawn jointly, with replacement, from the rows of `table`."""
    rows = rng.integers(0, len(table), size=arrival_s.size)
    return requests_of(
        arrival_s,
        table["prompt_tokens"].to_numpy()[rows].astype(np.int64),
        table["output_tokens"].to_numpy()[rows].astype(np.int64),
    )


def draw_arrivals(
    process: ArrivalProcess, rng: np.random.Generator, num_requests: int | None, duration_s: float | None
) -> NDArray[np.float64]:
    """Arrival times: the first `num_requests`, or all before `duration_s`, or the fewer of both."""
    if duration_s is None:
        assert num_requests is not None
        return process.first(rng, num_requests)
    return process.until(rng, duration_s)[:num_requests]


def check_extent(num_requests: int | None, duration_s: float | None) -> None:
    """InputError unless a number of requests or a duration bounds the workload."""
    if num_requests is None and duration_s is None:
        raise InputError("the workload has no end; give the number of requests or a duration.")
    if num_requests is not None and num_requests < 1:
        raise InputError(f"number of requests is {num_requests}; it must be at least 1.")
    if duration_s is not None and not duration_s > 0:
        raise InputError(f"duration is {duration_s} s; it must be positive.")


def requests_of(arrival_s: NDArray[np.float64], prompt_tokens: IntArray, output_tokens: IntArray) -> pd.DataFrame:
    """A table of `WORKLOAD_COLUMNS` without sessions or priorities, each request limited to its output length."""
    return pd.DataFrame(
        {
            "arrival_s": arrival_s,
            "prompt_tokens": prompt_tokens,
            "output_tokens": output_tokens,
            "max_tokens": output_tokens,
            "session_id": pd.Series([None] * arrival_s.size, dtype=object),
            "priority": np.zeros(arrival_s.size, dtype=np.int64),
        }
    )


def convert_keys(keys: IntArray, key_block_size: int, block_size: int, prompt_tokens: int) -> IntArray:
    """Keys of a prompt's full blocks of `block_size` tokens from those of its blocks of `key_block_size`.

    A smaller block's key is its parent's and its place in it, as one number; a larger block has the key of the last
    small one in it, which names everything before it too.
    """
    full = prompt_tokens // block_size
    if key_block_size % block_size == 0:
        ratio = key_block_size // block_size
        return (keys[:, None] * ratio + np.arange(ratio)).ravel()[:full]
    if block_size % key_block_size == 0:
        ratio = block_size // key_block_size
        return keys[ratio - 1 :: ratio][:full]
    raise InputError(
        f"block_size is {block_size} but the workload's prefixes are hashed in blocks of {key_block_size} tokens; "
        "choose a block size that divides it or is a multiple of it."
    )


def check_fits(workload: Workload, config: EngineConfig) -> None:
    """Raise for the first request that this engine could never finish: beyond the context, or the whole KV cache."""
    prompt = workload.requests["prompt_tokens"].to_numpy()
    total = prompt + workload.requests["max_tokens"].to_numpy()
    # The last token is yielded, never fed back: its keys and values are not computed.
    blocks = -(-(total - 1 + config.num_lookahead_tokens) // config.block_size)
    for row in np.flatnonzero(prompt >= config.max_model_len)[:1]:
        raise InputError(
            f"request {row + 1} has a prompt of {prompt[row]} tokens, which leaves no room for an answer in the "
            f"context of {config.max_model_len}; shorten the prompts or raise max_model_len."
        )
    for row in np.flatnonzero(total > config.max_model_len)[:1]:
        raise InputError(
            f"request {row + 1} needs {total[row]} tokens (prompt {prompt[row]}), beyond the context of "
            f"{config.max_model_len}; shorten the requests or raise max_model_len."
        )
    for row in np.flatnonzero(blocks > config.usable_blocks)[:1]:
        raise CapacityError(
            f"request {row + 1} needs {blocks[row]} KV blocks of {config.block_size} tokens and the cache has "
            f"{config.usable_blocks}; raise num_blocks to {blocks[row] + 1} or shorten the requests."
        )


def _describe(workload: SyntheticWorkload) -> dict[str, Any]:
    """The generator's settings as strict JSON: infinity is spelled "inf", as `vllm bench serve` does."""
    rate, burstiness = workload.arrivals.rate_per_s, workload.arrivals.burstiness
    return {
        "request_rate": finite_or_inf(rate),
        "burstiness": finite_or_inf(burstiness),
        "prompt_tokens": repr(workload.prompt),
        "output_tokens": repr(workload.output),
        "num_requests": workload.num_requests,
        "duration_s": workload.duration_s,
    }


def finite_or_inf(value: float) -> float | str:
    """A number as strict JSON can hold it."""
    return "inf" if value == float("inf") else value
