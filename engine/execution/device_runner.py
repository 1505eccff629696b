"""Executes the scheduler's batches on a device that works on by itself: a step may be launched before the host has seen
the tokens of the step before.

A launch sends one packed block of int32, changes alone, and starts the step; a plain decode replays a captured graph of
the next larger batch size. At most two steps are on their way: what a step reads of the host's memory is not touched
before the step after the next.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import torch

from engine.core.batch import Batch
from engine.core.config import EngineConfig
from engine.core.records import EAGER, StepKind
from engine.core.request import Request
from engine.execution.decode_graphs import DecodeGraphs, padded_batch
from engine.execution.device_program import DeviceProgram
from engine.execution.device_rows import DeviceRows
from engine.execution.packing import Packed, pack
from engine.execution.sequence import Sequence
from engine.execution.step import Outcome
from engine.execution.step_arrays import Arrays, chunk_arrays, guard_arrays
from engine.execution.step_timer import StepTimer, step_timer

STEPS_ON_THEIR_WAY = 2


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """A step that the device has been told to do; row i of its tokens belongs to `sampled[i]`, decodes first."""

    sampled: list[Request]
    num_decodes: int
    kind: StepKind
    lane: "_Lane"


class _Lane:
    """Host memory of one step on its way: what the device reads, what it writes, when it is done."""

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.timer: StepTimer = step_timer(device)
        self._device, self._pins = device, device.type == "cuda"
        self.tokens = torch.zeros(2 * num_rows, dtype=torch.int32, pin_memory=self._pins)  # last ones, then fresh ones
        self._block = torch.zeros(0, dtype=torch.int32)

    def send(self, packed: Packed) -> torch.Tensor:
        """A copy of the packed arrays on the device."""
        if packed.size > len(self._block):
            self._block = torch.zeros(2 * packed.size, dtype=torch.int32, pin_memory=self._pins)
        packed.write(self._block.numpy())
        return self._block[: packed.size].to(self._device, non_blocking=True, copy=True)


class DeviceRunner:
    """A program on its device, and the host's side of its rows.

    `batches` are the ascending sizes to which plain decodes are padded, and which a GPU captures as graphs; none leaves
    every step as it is.
    """

    launches_ahead = True

    def __init__(self, program: DeviceProgram, config: EngineConfig, batches: Items[int] = ()) -> None:
        state = program.state
        self.model, self.cache = program.model, program.cache
        self._program, self._batches = program, tuple(batches)
        self._rows = DeviceRows(state.layout)
        device = state.flat.device
        self._lanes = [_Lane(state.layout.rows, device) for _ in range(STEPS_ON_THEIR_WAY)]
        self._on_gpu = device.type == "cuda"
        self._graphs = DecodeGraphs(program.decode, self._batches) if self._on_gpu and batches else None

    def launch(self, batch: Batch, sequences: Mapping[Request, Sequence]) -> LaunchedStep:
        """Start a batch just scheduled; batches come in the order of their scheduling."""
        rows, lane = self._rows, self._lanes[0]
        self._lanes.append(self._lanes.pop(0))
        changes = rows.apply(batch, sequences)
        fresh = [chunk.request for chunk in batch.chunks if chunk.samples]
        rows.note_fresh(fresh)
        arrays: Arrays = {"copies": changes.copies, "values": changes.values}
        if batch.chunks:
            arrays |= chunk_arrays(batch.chunks, sequences, len(rows))
        arrays |= guard_arrays(self._guarded(fresh, sequences))
        lane.timer.start()
        kind = self._run(batch, arrays, lane)
        self._fetch(lane, len(fresh))
        lane.timer.stop()
        return LaunchedStep([*rows.requests, *fresh], len(rows), kind, lane)

    def collect(self, step: LaunchedStep, sequences: Mapping[Request, Sequence]) -> Outcome:
        """Wait for a launched step; steps are collected in the order of their launches."""
        device_s = step.lane.timer.wait()
        tokens, rows = step.lane.tokens.numpy(), self._program.state.layout.rows
        fresh = len(step.sampled) - step.num_decodes
        sampled = np.concatenate([tokens[: step.num_decodes], tokens[rows : rows + fresh]])
        return Outcome(step.sampled, sampled, device_s, kind=step.kind)

    def _run(self, batch: Batch, arrays: Arrays, lane: _Lane) -> StepKind:
        """Send the arrays and tell the device what to do with them."""
        program, num_rows = self._program, len(self._rows)
        parts: dict[str, torch.Tensor] = {}
        if any(array.size for array in arrays.values()):
            packed = pack(arrays)
            parts = packed.read(lane.send(packed))
            program.state.apply(parts["copies"], parts["values"])
        if batch.chunks or "guarded_rows" in arrays:
            program.mixed(num_rows, parts, max((chunk.num_tokens for chunk in batch.chunks), default=0))
            return EAGER
        padded = padded_batch(self._batches, num_rows)
        if padded is None or self._graphs is None:
            program.decode(padded or num_rows)
            return EAGER
        self._graphs.replay(padded)
        return StepKind("graph", padded)

    def _fetch(self, lane: _Lane, num_fresh: int) -> None:
        """Have the step's tokens copied to the host: the rows' and the fresh ones lie behind one another."""
        layout = self._program.state.layout
        first, count = layout.token(0), layout.rows + num_fresh
        lane.tokens[:count].copy_(self._program.state.flat[first : first + count], non_blocking=True)

    def _guarded(self, fresh: list[Request], sequences: Mapping[Request, Sequence]) -> dict[int, Sequence]:
        """The sequences, by row of the logits, whose next token must not end them."""
        rows = self._rows
        candidates = [(rows.row_of(request), request) for request in rows.guarded]
        candidates += [(len(rows) + index, request) for index, request in enumerate(fresh)]
        return {
            row: sequences[request]
            for row, request in candidates
            if request.num_computed_tokens < sequences[request].settings["guarded_until"]
        }
