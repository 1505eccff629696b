"""Which batch compositions `engine bench steps` measures, and what memory they need."""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.core.config import EngineConfig
from roofline.errors import CapacityError, InputError


@dataclass(frozen=True, slots=True)
class Grid:
    """Decode batches at context lengths, prefill chunks on top of cached histories, and mixes of both.

    All in tokens but for `decode_batches` (sequences); each point is run `repeats` times.
    """

    decode_batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    contexts: tuple[int, ...] = (32, 128, 512)
    chunks: tuple[int, ...] = (16, 64, 256, 512)
    histories: tuple[int, ...] = (0, 256, 1024)
    mixed_chunks: tuple[int, ...] = (32, 192)
    repeats: int = 3

    def __post_init__(self) -> None:
        for name in ("decode_batches", "contexts", "chunks", "histories", "mixed_chunks"):
            values, least = getattr(self, name), 0 if name == "histories" else 1
            if not values or min(values) < least:
                raise InputError(f"{name} are {list(values)}; give at least one value, each at least {least}.")
        if self.repeats < 1:
            raise InputError(f"repeats is {self.repeats}; it must be at least 1.")

    @property
    def num_points(self) -> int:
        """Rows that a whole run yields."""
        decode_levels = len(self.contexts) * len(self.decode_batches)
        return decode_levels * (1 + len(self.mixed_chunks)) + len(self.chunks) * len(self.histories)

    @property
    def least_budget(self) -> int:
        """The smallest max_num_batched_tokens with which every point is one step."""
        return max(*self.chunks, max(self.mixed_chunks) + max(self.decode_batches))

    def decode_room(self, budget: int) -> int:
        """Output tokens a decoding sequence must be able to yield at one context.

        It decodes while others still fill (`budget` tokens a step), and in each repeat.
        """
        fill = -(-max(self.decode_batches) * max(self.contexts) // budget) + max(self.decode_batches)
        return 2 + fill + (self.repeats + 1) * len(self.decode_batches) * (1 + len(self.mixed_chunks))

    def longest_tokens(self, budget: int) -> int:
        """The longest sequence that a run builds."""
        longest_chunk = max(*self.chunks, *self.mixed_chunks)
        return max(max(self.contexts) + self.decode_room(budget), max(self.histories) + longest_chunk + 1)

    def prefill_points(self) -> Iterator[tuple[int, int]]:
        """(chunk, history) of the prefill points."""
        return ((chunk, history) for history in self.histories for chunk in self.chunks)

    def num_blocks(self, block_size: int, budget: int) -> int:
        """KV blocks, the null block among them, with which no point preempts or evicts another's history."""
        batch = max(self.decode_batches)
        decoding = batch * -(-(max(self.contexts) + self.decode_room(budget)) // block_size)
        prefilling = -(-(max(self.histories) + max(self.chunks) + 1) // block_size)
        return 1 + decoding + (2 + self.repeats) * prefilling

    def check(self, config: EngineConfig) -> None:
        """Raise where a point cannot be run as one step under this config."""
        batch, budget = max(self.decode_batches), config.max_num_batched_tokens
        if batch >= config.max_num_seqs:
            raise InputError(
                f"a decode batch of {batch} and a prefill beside it exceed max_num_seqs "
                f"{config.max_num_seqs}; raise it to {batch + 1}."
            )
        for name, chunk, beside in (("chunk", max(self.chunks), 0), ("mixed chunk", max(self.mixed_chunks), batch)):
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
        longest = self.longest_tokens(budget)
        if longest > config.max_model_len:
            raise InputError(
                f"the grid builds sequences of {longest} tokens, beyond max_model_len {config.max_model_len}; measure "
                "shorter contexts or histories."
            )
        needed = self.num_blocks(config.block_size, budget)
        if config.num_blocks < needed:
            raise CapacityError(
                f"the grid needs {needed} KV blocks of {config.block_size} tokens and num_blocks is "
                f"{config.num_blocks}; raise it, or measure smaller batches or shorter contexts."
            )
