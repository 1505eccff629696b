"""Which batch compositions `engine bench steps` measures, and what memory they need."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.core.config import EngineConfig
from roofline.errors import CapacityError, InputError

_LEAST = {"histories": 0}
_MAY_BE_EMPTY = ("packs", "skewed_batches", "mixed_chunks")
SKEWS = ("ramp", "one long")


@dataclass(frozen=True, slots=True)
class Grid:
    """Decode batches at context lengths, prefill chunks on top of cached histories, and mixes of both.

    All in tokens but for the batches and `packs` (sequences); each point is run `repeats` times. `packs` split each
    chunk over so many sequences without history. `skewed_batches` decode at unequal contexts: on a geometric ramp from
    the shortest to the longest, and with one long context beside short ones. `max_decode_tokens` bounds batch times
    context: larger points are left out.
    """

    decode_batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    contexts: tuple[int, ...] = (32, 128, 512)
    chunks: tuple[int, ...] = (16, 64, 256, 512)
    histories: tuple[int, ...] = (0, 256, 1024)
    mixed_chunks: tuple[int, ...] = (32, 192)
    packs: tuple[int, ...] = (4,)
    skewed_batches: tuple[int, ...] = (8,)
    repeats: int = 3
    max_decode_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("decode_batches", "contexts", "chunks", "histories", "mixed_chunks", "packs", "skewed_batches"):
            values, least = getattr(self, name), _LEAST.get(name, 1)
            if (not values and name not in _MAY_BE_EMPTY) or min(values, default=least) < least:
                raise InputError(f"{name} are {list(values)}; give at least one value, each at least {least}.")
        if self.repeats < 1:
            raise InputError(f"repeats is {self.repeats}; it must be at least 1.")
        cap = self.max_decode_tokens
        if cap is not None and cap < min(self.contexts) * min(self.decode_batches):
            raise InputError(
                f"max_decode_tokens is {cap}, below the smallest point, {min(self.decode_batches)} sequences of "
                f"{min(self.contexts)} tokens; raise it."
            )

    @property
    def num_points(self) -> int:
        """Rows that a whole run yields."""
        decode_points = sum(len(batches) for _, batches in self.decode_levels())
        prefills = sum(1 for _ in self.prefill_points()) + sum(1 for _ in self.pack_points())
        return decode_points * (1 + len(self.mixed_chunks)) + prefills + len(self.skewed_batches) * len(SKEWS)

    @property
    def most_sequences(self) -> int:
        """Sequences of the largest point."""
        return max((1 + self.largest_decode_batch, *self.packs, *self.skewed_batches))

    @property
    def largest_decode_batch(self) -> int:
        """Of the levels that are measured."""
        return max(max(batches) for _, batches in self.decode_levels())

    @property
    def least_budget(self) -> int:
        """The smallest max_num_batched_tokens with which every point is one step."""
        beside = max(self.mixed_chunks, default=1) + self.largest_decode_batch
        return max((*self.chunks, beside, *self.skewed_batches))

    def decode_levels(self) -> list[tuple[int, tuple[int, ...]]]:
        """(context, decode batches from the largest down) of the decode points, contexts ascending."""
        cap = float("inf") if self.max_decode_tokens is None else self.max_decode_tokens
        levels = [
            (context, tuple(sorted((batch for batch in self.decode_batches if batch * context <= cap), reverse=True)))
            for context in sorted(self.contexts)
        ]
        return [(context, batches) for context, batches in levels if batches]

    def decode_room(self, budget: int) -> int:
        """Output tokens a decoding sequence must be able to yield at one context.

        It decodes while others still fill (`budget` tokens a step), and in each repeat.
        """
        levels = [(context, max(batches), len(batches)) for context, batches in self.decode_levels()]
        levels += [(max(self.contexts), batch, 1) for batch in self.skewed_batches]
        return max(
            2 + -(-batch * context // budget) + batch + (self.repeats + 1) * points * (1 + len(self.mixed_chunks))
            for context, batch, points in levels
        )

    def longest_tokens(self, budget: int) -> int:
        """The longest sequence that a run builds."""
        return max(max(self.contexts) + self.decode_room(budget), max(self.histories) + self._longest_chunk + 1)

    @property
    def _longest_chunk(self) -> int:
        return max((*self.chunks, *self.mixed_chunks))

    def prefill_points(self) -> Iterator[tuple[int, int]]:
        """(chunk, history) of the prefill points."""
        return ((chunk, history) for history in self.histories for chunk in self.chunks)

    def pack_points(self) -> Iterator[tuple[int, int]]:
        """(chunk, sequences that share it) of the packed prefill points; chunks too small to split are left out."""
        return ((chunk, pack) for pack in self.packs for chunk in self.chunks if chunk >= 2 * pack)

    def skewed_contexts(self, batch: int, skew: str) -> list[int]:
        """Contexts of a skewed decode batch, the longest first."""
        low, high = min(self.contexts), max(self.contexts)
        if skew == "one long":
            return [high, *[low] * (batch - 1)]
        return [int(length) for length in np.geomspace(high, low, batch).round()]

    def num_blocks(self, block_size: int, budget: int) -> int:
        """KV blocks, the null block among them, with which no point preempts or evicts another's history."""
        room = self.decode_room(budget)
        populations = [[context] * max(batches) for context, batches in self.decode_levels()]
        populations += [self.skewed_contexts(batch, skew) for batch in self.skewed_batches for skew in SKEWS]
        decoding = max(sum(-(-(context + room) // block_size) for context in contexts) for contexts in populations)
        prefilling = -(-(max(self.histories) + self._longest_chunk + 1) // block_size)
        return 1 + decoding + (2 + self.repeats) * (prefilling + max(self.packs, default=0))

    def check(self, config: EngineConfig) -> None:
        """Raise where a point cannot be run as one step under this config."""
        self._check_steps(config)
        self._check_memory(config)

    def _check_steps(self, config: EngineConfig) -> None:
        batch, budget = self.largest_decode_batch, config.max_num_batched_tokens
        if self.most_sequences > config.max_num_seqs:
            raise InputError(
                f"the grid has points of {self.most_sequences} sequences (a decode batch counts the prefill beside "
                f"it), beyond max_num_seqs {config.max_num_seqs}; raise it to {self.most_sequences}."
            )
        mixed = max(self.mixed_chunks, default=0)
        for name, chunk, beside in (("chunk", max(self.chunks), 0), ("mixed chunk", mixed, batch)):
            if chunk + beside > budget:
                raise InputError(
                    f"a {name} of {chunk} tokens beside {beside} decodes exceeds max_num_batched_tokens {budget}; "
                    f"raise it to {chunk + beside}."
                )
        for history in self.histories:
            if history % config.block_size:
                raise InputError(
                    f"a history of {history} tokens is no multiple of block_size {config.block_size}, and only full "
                    "blocks stay cached; choose a multiple."
                )

    def _check_memory(self, config: EngineConfig) -> None:
        longest = self.longest_tokens(config.max_num_batched_tokens)
        if longest > config.max_model_len:
            raise InputError(
                f"the grid builds sequences of {longest} tokens, beyond max_model_len {config.max_model_len}; measure "
                "shorter contexts or histories."
            )
        needed = self.num_blocks(config.block_size, config.max_num_batched_tokens)
        if config.num_blocks < needed:
            raise CapacityError(
                f"the grid needs {needed} KV blocks of {config.block_size} tokens and num_blocks is "
                f"{config.num_blocks}; raise it, or measure smaller batches or shorter contexts."
            )
