"""Which sequence decodes in which row of the device's state, and what a batch changes there.

The host keeps the assignment alone. Positions and tokens move on by themselves on the device, so a batch sends the rows
of those who join, what moves into a gap, and new blocks: nothing for a sequence that only decodes. A token that the
device has sampled and the host has not seen yet is named by its place on the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.core.batch import Batch
from engine.core.request import Request
from engine.execution.device_state import IDLE, StateLayout
from engine.execution.sequence import Sequence

Pairs = NDArray[np.int32]
_SETTING_PLACES = 6  # int32 places of temperature, top_k, top_p, min_p and seed in a record of SETTINGS
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class RowChanges:
    """copies: [n, 2] of (place, source), all read before any is written; values: [n, 2] of (place, value)."""

    copies: Pairs
    values: Pairs


class DeviceRows:
    """Row i belongs to `requests[i]`; rows are in no order, and the last one fills a gap."""

    def __init__(self, layout: StateLayout) -> None:
        self.requests: list[Request] = []
        self.guarded: dict[Request, None] = {}  # those that may not end before a number of tokens
        self._layout = layout
        self._row_of: dict[Request, int] = {}
        self._num_blocks: dict[Request, int] = {}  # that the device knows of
        self._fresh: dict[Request, int] = {}  # place of the token that the last step's chunk of a request yields

    def __len__(self) -> int:
        return len(self.requests)

    def row_of(self, request: Request) -> int:
        """The row of a decoding request."""
        return self._row_of[request]

    def apply(self, batch: Batch, sequences: Mapping[Request, Sequence]) -> RowChanges:
        """Take in a batch just scheduled; batches come in the order of their scheduling."""
        if not (batch.left or batch.joined or batch.grown):
            return RowChanges(_pairs([]), _pairs([]))
        before = len(self)
        sources = self._reassign(batch, sequences)
        layout = self._layout
        copies, values = [], []
        for request, source in sources.items():
            row = self._row_of[request]
            if source != _UNKNOWN:
                copies.append((layout.token(row), source))
            else:
                values.append(_pairs([(layout.token(row), sequences[request].token_ids[-1])]))
            values.append(self._row(row, request, sequences[request]))
        for row in range(len(self), before):
            values.append(_pairs([(layout.position(row), IDLE), (layout.temperature(row), 0)]))
        values.append(_pairs(self._new_blocks([r for r in batch.grown if r in self._row_of and r not in sources])))
        return RowChanges(_pairs(copies), np.concatenate(values))

    def note_fresh(self, requests: list[Request]) -> None:
        """Whose chunks yield a token in the step of the batch last applied, in the order of its fresh tokens."""
        self._fresh = {request: self._layout.fresh_token(index) for index, request in enumerate(requests)}

    def _reassign(self, batch: Batch, sequences: Mapping[Request, Sequence]) -> dict[Request, int]:
        """Move rows; returns whose row changed, with the place of its last token on the device where it is there."""
        sources: dict[Request, int] = {}
        parted: dict[Request, int] = {}
        for request in batch.left:
            row, moved = self._row_of.pop(request), self.requests.pop()
            parted[request] = sources.pop(request, self._layout.token(row))
            self.guarded.pop(request, None)
            if moved is not request:
                sources.setdefault(moved, self._layout.token(self._row_of[moved]))
                self.requests[row] = moved
                self._row_of[moved] = row
        for request in batch.joined:
            self._row_of[request] = len(self)
            self.requests.append(request)
            sources[request] = parted.get(request, self._fresh.get(request, _UNKNOWN))
            if sequences[request].params.min_tokens:
                self.guarded[request] = None
        for request in parted.keys() - self._row_of.keys():
            del self._num_blocks[request]
        return sources

    def _row(self, row: int, request: Request, sequence: Sequence) -> Pairs:
        """All of a row but its token."""
        scalars, blocks = self._layout.scalars(row), request.block_ids
        first = self._layout.table(row)
        places = np.concatenate([scalars, np.arange(first, first + len(blocks), dtype=np.int32)])
        settings = np.frombuffer(sequence.settings.tobytes(), np.int32)[:_SETTING_PLACES]
        self._num_blocks[request] = len(blocks)
        values = np.concatenate([[request.num_computed_tokens - 1], settings, blocks]).astype(np.int32)
        return np.stack([places, values], axis=1)

    def _new_blocks(self, grown: list[Request]) -> list[tuple[int, int]]:
        pairs = []
        for request in grown:
            row, known = self._row_of[request], self._num_blocks[request]
            self._num_blocks[request] = len(request.block_ids)
            pairs += [(self._layout.table(row, i), request.block_ids[i]) for i in range(known, len(request.block_ids))]
        return pairs


def _pairs(pairs: list[tuple[int, int]]) -> Pairs:
    return np.array(pairs, np.int32).reshape(-1, 2)
