"""What the host tells the device of a step that is more than a plain decode: chunks of prompts, and guarded ends."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.core.batch import Chunk
from engine.core.request import Request
from engine.execution.packing import ALIGNMENT
from engine.execution.sequence import SETTINGS, Sequence

Arrays = dict[str, NDArray[Any]]


def chunk_arrays(chunks: tuple[Chunk, ...], sequences: Mapping[Request, Sequence], num_decodes: int) -> Arrays:
    """The chunks' tokens one after the other, and how the tokens that they yield are drawn.

    token_ids: [tokens]; starts: [chunks + 1] among them; contexts: [chunks] cached tokens; tables: [chunks, blocks];
    sampled_rows: rows of the pass whose logits are wanted, decodes first; temperature, top_k, top_p, min_p, seeds,
    new_positions: [sampling chunks].
    """
    lengths = [chunk.num_tokens for chunk in chunks]
    starts = np.cumsum([0, *lengths], dtype=np.int32)
    tokens = [sequences[chunk.request].token_ids[chunk.start : chunk.start + chunk.num_tokens] for chunk in chunks]
    ends = [int(end) for end, chunk in zip(starts[1:], chunks, strict=True) if chunk.samples]
    yielding = [chunk for chunk in chunks if chunk.samples]
    return {
        "token_ids": np.concatenate(tokens, dtype=np.int32),
        "starts": starts,
        "contexts": np.array([chunk.start for chunk in chunks], np.int32),
        "tables": _tables(chunks),
        "sampled_rows": np.append(np.arange(num_decodes), np.array(ends) + num_decodes - 1).astype(np.int32),
        **_settings([sequences[chunk.request] for chunk in yielding]),
        "new_positions": np.array([chunk.start + chunk.num_tokens for chunk in yielding], np.int32),
    }


def guard_arrays(guarded: Mapping[int, Sequence]) -> Arrays:
    """Ends that must not be sampled yet, as pairs of (row of the logits, token id); `guarded`: by row."""
    pairs = [(row, token) for row, sequence in guarded.items() for token in sequence.end_ids]
    if not pairs:
        return {}
    rows, ids = np.array(pairs, np.int32).T
    return {"guarded_rows": rows, "guarded_ids": ids}


def _tables(chunks: tuple[Chunk, ...]) -> NDArray[np.int32]:
    """The blocks of each chunk's sequence, null-padded to the longest."""
    owned = [chunk.request.block_ids for chunk in chunks]
    width = -(-max(map(len, owned)) // ALIGNMENT) * ALIGNMENT  # every row starts where wide loads may
    tables = np.zeros((len(chunks), width), np.int32)
    for row, block_ids in enumerate(owned):
        tables[row, : len(block_ids)] = block_ids
    return tables


def _settings(sequences: list[Sequence]) -> Arrays:
    records = np.array([sequence.settings for sequence in sequences], SETTINGS)
    columns = {name: np.ascontiguousarray(records[name]) for name in ("temperature", "top_k", "top_p", "min_p")}
    return {**columns, "seeds": records["seed"].astype(np.int64)}
