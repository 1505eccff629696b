"""Requests of different lengths in one cache: how many run at once, when each holds what it has reached so far.

Sizing by the longest request wastes most of the memory. A request holds its prompt and the answer so far, and one with
a long answer stays longer, so at a random moment it is met more often. From that distribution of what one running
request holds, the number that fits follows: their sum stays within the cache at all but a small share of moments.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from roofline.errors import InputError

_MOMENTS_PER_REQUEST = 32  # of a request's life at which its cache is looked at


@dataclass(frozen=True, slots=True)
class RequestLength:
    """Requests of one length, and how many of them there are beside the others."""

    prompt_tokens: int
    output_tokens: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse lengths without a prompt or an answer."""
        if self.prompt_tokens < 1 or self.output_tokens < 1 or not 0 < self.weight < math.inf:
            raise InputError(
                f"length {self.prompt_tokens}+{self.output_tokens} of weight {self.weight} has no meaning; prompt and "
                "answer have at least one token, and the weight is positive."
            )


@dataclass(frozen=True, slots=True)
class HeldBlocks:
    """What one running request holds at a random moment, in blocks of single layers."""

    mean: float
    standard_deviation: float
    largest: int

    def concurrent(self, capacity: float, confidence: float) -> int:
        """Requests whose sum is within `capacity` at a share `confidence` of moments; the sum counts as normal.

        At least those that fit if all were at their largest.
        """
        if not 0.5 <= confidence < 1:
            raise InputError(f"confidence is {confidence}; it must be at least 0.5 and below 1.")
        spread = NormalDist().inv_cdf(confidence) * self.standard_deviation
        root = (-spread + math.sqrt(spread**2 + 4 * self.mean * capacity)) / (2 * self.mean)
        return max(int(capacity // self.largest), int(root**2))


def held_blocks(lengths: Sequence[RequestLength], blocks_of: Callable[[int], int]) -> HeldBlocks:
    """The distribution of what a running request holds, `blocks_of` saying it for a number of tokens.

    A request's stay is taken as proportional to its output: decoding takes nearly all of it.
    """
    progress = (np.arange(_MOMENTS_PER_REQUEST) + 0.5) / _MOMENTS_PER_REQUEST
    tokens = np.concatenate([one.prompt_tokens + progress * one.output_tokens for one in lengths])
    shares = np.repeat([one.weight * one.output_tokens for one in lengths], _MOMENTS_PER_REQUEST)
    blocks = np.array([blocks_of(math.ceil(count)) for count in tokens], dtype=np.float64)
    mean = float(np.average(blocks, weights=shares))
    variance = float(np.average((blocks - mean) ** 2, weights=shares))
    largest = max(blocks_of(one.prompt_tokens + one.output_tokens) for one in lengths)
    return HeldBlocks(mean, math.sqrt(variance), largest)


def parse_lengths(text: str) -> list[RequestLength]:
    """Lengths as a user writes them: `PROMPT+OUTPUT`, several with commas, each with `@WEIGHT` if they differ."""
    return [_parse_one(part.strip()) for part in text.split(",")]


def _parse_one(text: str) -> RequestLength:
    lengths, _, weight = text.partition("@")
    prompt, plus, output = lengths.partition("+")
    try:
        if not plus:
            raise ValueError
        return RequestLength(int(prompt), int(output), float(weight or 1))
    except ValueError:
        raise InputError(
            f"length {text!r} is not PROMPT+OUTPUT or PROMPT+OUTPUT@WEIGHT in tokens, as 1000+200@3."
        ) from None


def read_lengths(path: Path) -> list[RequestLength]:
    """The lengths of a CSV or parquet file with the columns prompt_tokens and output_tokens; equal ones together.

    Raises `InputError` for a file without them, or with a row that has no prompt or no answer.
    """
    import pandas as pd

    columns = ["prompt_tokens", "output_tokens"]
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no table: {error}.") from error
    missing = [name for name in columns if name not in table]
    if missing or table.empty:
        raise InputError(f"{path} lacks {', '.join(missing) or 'rows'}; it needs rows of {' and '.join(columns)}.")
    try:
        counted = table[columns].astype("int64").value_counts().reset_index(name="count")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds a length that is no whole number: {error}.") from error
    return [RequestLength(int(row[0]), int(row[1]), float(row[2])) for row in counted.to_numpy()]
