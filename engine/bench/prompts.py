"""Prompts of given lengths as random token ids: equal where the workload's block keys are, different elsewhere."""

import numpy as np
from numpy.typing import NDArray

from engine.core.workload import Workload

TokenIds = NDArray[np.int64]
# Requests without keys hold one block of their own; its number lies beyond any key of a public trace.
_OWN_BLOCK = 1 << 48
_POSITIONS = np.uint64(1 << 20)


def prompt_token_ids(workload: Workload, index: int, vocab_size: int, seed: int) -> TokenIds:
    """The prompt of request `index`, shape (prompt_tokens,): same seed and same prefix keys, same tokens."""
    positions = np.arange(int(workload.requests["prompt_tokens"].to_numpy()[index]))
    if workload.block_keys is None:
        return _tokens(np.full(positions.size, _OWN_BLOCK + index), positions, vocab_size, seed)
    keys, size = workload.block_keys[index], workload.key_block_size
    covered = positions < keys.size * size
    block = np.where(
        covered, keys[np.minimum(positions // size, keys.size - 1)] if keys.size else 0, _OWN_BLOCK + index
    )
    return _tokens(block, np.where(covered, positions % size, positions), vocab_size, seed)


def _tokens(block: TokenIds, offset: TokenIds, vocab_size: int, seed: int) -> TokenIds:
    """A token for each (block, offset): a hash, so that the tokens of a block need no table of blocks."""
    place = block.astype(np.uint64) * _POSITIONS + offset.astype(np.uint64)
    mixed = _mix(place ^ _mix(np.full(1, seed, dtype=np.uint64)))
    return (mixed % np.uint64(vocab_size)).astype(np.int64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014): every input bit reaches every output bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
