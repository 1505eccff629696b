"""What the device keeps of the decoding sequences from step to step, so that a decode step needs nothing from the host.

Everything lies in one flat tensor of int32: a change of any field is a (place, value) pair, and all changes of a step
are one scatter. A row that no sequence uses has position -1. Its context is then 0 and its cache slot -1, which the
kernels skip, so a captured graph may run more rows than are in use.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.execution.packing import ALIGNMENT

IDLE = -1  # position of a row that no sequence uses
NO_SLOT = -1  # cache slot of a token whose keys and values are not to be written

# The scalar fields of a row, in the order of `sequence.SETTINGS` behind the position; a seed takes two places.
_SCALARS = ("position", "temperature", "top_k", "top_p", "min_p", "seed", "seed")


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Places in the flat tensor: `rows` sequences, a multiple of 8, of at most `blocks` KV blocks, a multiple of 4.

    In order: seeds (two places a row), last tokens, fresh tokens (of the prefill chunks of the last step), positions,
    temperatures, top_k, top_p, min_p, block tables.
    """

    rows: int
    blocks: int

    @classmethod
    def of(cls, num_rows: int, num_blocks: int) -> "StateLayout":
        """The smallest layout that holds as many rows and blocks a row."""
        return cls(-(-num_rows // 8) * 8, -(-num_blocks // ALIGNMENT) * ALIGNMENT)

    @property
    def size(self) -> int:
        """Places in all."""
        return (9 + self.blocks) * self.rows

    def section(self, index: int) -> slice:
        """The places of a field of one place a row; 0 and 1 are the seeds' together."""
        return slice(index * self.rows, (index + 1) * self.rows)

    def token(self, row: int) -> int:
        """Place of a row's last token."""
        return 2 * self.rows + row

    def fresh_token(self, index: int) -> int:
        """Place of the token that the index-th sampling chunk of the last step yielded."""
        return 3 * self.rows + index

    def position(self, row: int) -> int:
        """Place of a row's position."""
        return 4 * self.rows + row

    def temperature(self, row: int) -> int:
        """Place of a row's temperature."""
        return 5 * self.rows + row

    def scalars(self, row: int) -> NDArray[np.int32]:
        """Places of position, temperature, top_k, top_p, min_p and the two halves of the seed."""
        fields = [field * self.rows + row for field in range(4, 9)]
        return np.array([*fields, 2 * row, 2 * row + 1], np.int32)

    def table(self, row: int, block: int = 0) -> int:
        """Place of a row's block id."""
        return 9 * self.rows + row * self.blocks + block


class DeviceState:
    """The fields as views of the flat tensor.

    token_ids: [rows], the token to run next; fresh_ids: [rows]; positions: [rows], its place in the sequence;
    temperature, top_p, min_p: [rows] float32; top_k: [rows]; seeds: [rows] int64; tables: [rows, blocks].
    """

    def __init__(self, layout: StateLayout, block_size: int, device: torch.device | str) -> None:
        self.layout, self.block_size = layout, block_size
        self.flat = torch.zeros(layout.size, dtype=torch.int32, device=device)
        part = layout.section
        self.seeds = self.flat[: 2 * layout.rows].view(torch.int64)
        self.token_ids, self.fresh_ids, self.positions = (self.flat[part(index)] for index in (2, 3, 4))
        self.temperature = self.flat[part(5)].view(torch.float32)
        self.top_k = self.flat[part(6)]
        self.top_p, self.min_p = (self.flat[part(index)].view(torch.float32) for index in (7, 8))
        self.tables = self.flat[layout.table(0) :].view(layout.rows, layout.blocks)
        self.positions.fill_(IDLE)

    def apply(self, copies: Tensor, values: Tensor) -> None:
        """Take in a step's changes: tokens move first, [n, 2] of (to, from); then [n, 2] of (place, value)."""
        if len(copies):
            self.flat.index_copy_(0, copies[:, 0].long(), self.flat.index_select(0, copies[:, 1]))
        if len(values):
            self.flat.index_copy_(0, values[:, 0].long(), values[:, 1])

    def slots(self, num_rows: int) -> Tensor:
        """Cache slot of each row's token: [num_rows], `NO_SLOT` for idle rows."""
        positions = self.positions[:num_rows]
        places = (positions.clamp(min=0) // self.block_size).long()
        return slots_in(self.tables[:num_rows].gather(1, places[:, None])[:, 0], positions, self.block_size)

    def advance(self, token_ids: Tensor) -> None:
        """The next token of the first rows, which move on by one position; idle rows stay idle."""
        count = len(token_ids)
        self.token_ids[:count] = token_ids
        positions = self.positions[:count]
        positions += positions > IDLE


def slots_in(blocks: Tensor, positions: Tensor, block_size: int) -> Tensor:
    """Cache slot of tokens in these blocks, at these positions of their sequences: [tokens] int32 all."""
    return (blocks * block_size + positions % block_size).masked_fill_(positions == IDLE, NO_SLOT)
