"""The standing set of decoding sequences as arrays: a step touches only the rows that change."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engine.core.batch import Batch
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.execution.sequence import SETTINGS, Sequence

Integers = NDArray[np.int64]


class DecodeRows:
    """Row i of every array belongs to `requests[i]`; rows are in no order, and the last one fills a gap.

    token_ids, positions: [rows], the token to run next and its place in the sequence; tables: [rows, blocks], block
    ids, null-padded; settings: [rows] of SETTINGS.
    """

    def __init__(self, config: EngineConfig) -> None:
        rows, self._block_size = config.max_num_seqs, config.block_size
        blocks = -(-(config.max_model_len + config.num_lookahead_tokens) // config.block_size)
        self.requests: list[Request] = []
        self._row_of: dict[Request, int] = {}
        self._token_ids = np.zeros(rows, np.int64)
        self._positions = np.zeros(rows, np.int64)
        self._tables = np.zeros((rows, blocks), np.int64)
        self._settings = np.zeros(rows, SETTINGS)

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def token_ids(self) -> Integers:
        """View of the rows in use."""
        return self._token_ids[: len(self)]

    @property
    def positions(self) -> Integers:
        """View of the rows in use."""
        return self._positions[: len(self)]

    @property
    def tables(self) -> Integers:
        """View of the rows in use."""
        return self._tables[: len(self)]

    @property
    def settings(self) -> NDArray[np.void]:
        """View of the rows in use."""
        return self._settings[: len(self)]

    def apply(self, batch: Batch, sequences: Mapping[Request, Sequence]) -> None:
        """Take in what a batch changes: who left, who joined, whose block table grew."""
        for request in batch.left:
            self._remove(request)
        for request in batch.joined:
            self._append(sequences[request])
        for request in batch.grown:
            row = self._row_of.get(request)
            if row is not None:
                self._set_table(row, request)

    def advance(self, sampled: Integers) -> None:
        """The next token of every row: [rows]."""
        self.token_ids[:] = sampled
        self.positions[:] += 1

    def slots(self) -> Integers:
        """Cache slot of each row's token: [rows]."""
        blocks = self.tables[np.arange(len(self)), self.positions // self._block_size]
        return blocks * self._block_size + self.positions % self._block_size

    def _append(self, sequence: Sequence) -> None:
        row = len(self)
        self.requests.append(sequence.request)
        self._row_of[sequence.request] = row
        self._token_ids[row] = sequence.token_ids[-1]
        self._positions[row] = len(sequence.token_ids) - 1
        self._settings[row] = sequence.settings
        self._set_table(row, sequence.request)

    def _remove(self, request: Request) -> None:
        row, last = self._row_of.pop(request), len(self) - 1
        moved = self.requests.pop()
        if row != last:
            self.requests[row] = moved
            self._row_of[moved] = row
            for array in (self._token_ids, self._positions, self._tables, self._settings):
                array[row] = array[last]

    def _set_table(self, row: int, request: Request) -> None:
        """Blocks that a request no longer owns become null: a row that runs once more after its end writes there."""
        owned = len(request.block_ids)
        self._tables[row, :owned] = request.block_ids
        self._tables[row, owned:] = 0


def length_groups(contexts: Integers, waste_limit: int) -> list[Integers] | None:
    """Rows grouped so that padding to a group's longest context wastes at most `waste_limit` tokens a group.

    None if all rows make one group. Padding costs memory traffic, a further group costs launches.
    """
    if len(contexts) * contexts.max() - contexts.sum() <= waste_limit:
        return None
    order = np.argsort(-contexts, kind="stable")
    groups, start, waste = [], 0, 0
    for place, context in enumerate(contexts[order].tolist()):
        waste += int(contexts[order[start]]) - context
        if waste > waste_limit:
            groups.append(order[start:place])
            start, waste = place, 0
    groups.append(order[start:])
    return groups
