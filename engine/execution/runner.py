"""Executes the scheduler's batches on a CPU: the arrays of a step, the forward pass, the sampling.

One step is `prepare`, `forward`, `sample`, in this order. It is the reference of `device_runner`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.core.batch import Batch, Chunk
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.execution.decode_rows import DecodeRows, Integers, length_groups
from engine.execution.kv_cache import KVCache
from engine.execution.model import DecodeGroup, ForwardInputs, Llama, PrefillChunk
from engine.execution.sampler import sample
from engine.execution.sequence import SETTINGS, Sequence
from engine.execution.step import Outcome

# Padding worth a group of its own: gathering 512 tokens of 3 KV heads costs about what the launches of one more
# attention call do (0.1 ms a layer on one AVX-512 core).
WASTE_LIMIT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """One batch as arrays; row i of the sampled ones belongs to `sampled[i]`, decodes first."""

    inputs: ForwardInputs
    num_decodes: int
    sampled: list[Request]
    settings: NDArray[np.void]  # [sampled] of SETTINGS
    positions: Integers  # [sampled], where the new tokens will stand


class Runner:
    """A model, its cache and the standing decode rows: an `Executor` that needs a step's tokens before the next."""

    launches_ahead = False

    def __init__(self, model: Llama, config: EngineConfig) -> None:
        weights = model.weights
        self.model = model
        self.device = weights.device
        self.cache = KVCache(model.shape, config.num_blocks, config.block_size, weights.dtype, weights.device)
        self._rows = DecodeRows(config)
        self._block_size = config.block_size

    def prepare(self, batch: Batch, sequences: Mapping[Request, Sequence]) -> PreparedStep:
        """Take in a batch's changes and lay out its tokens; batches come in the order of their scheduling."""
        rows = self._rows
        rows.apply(batch, sequences)
        parts = [_ChunkArrays(chunk, sequences[chunk.request], self._block_size) for chunk in batch.chunks]
        sampling = [part for part in parts if part.chunk.samples]
        last = np.array([part.positions[-1] for part in sampling], np.int64)
        return PreparedStep(
            inputs=self._inputs(parts),
            num_decodes=len(rows),
            sampled=rows.requests + [part.chunk.request for part in sampling],
            settings=np.concatenate([rows.settings, np.array([part.sequence.settings for part in sampling], SETTINGS)]),
            positions=np.append(rows.positions, last) + 1,
        )

    def launch(self, batch: Batch, sequences: Mapping[Request, Sequence]) -> PreparedStep:
        """See `Executor`."""
        return self.prepare(batch, sequences)

    def collect(self, step: PreparedStep, sequences: Mapping[Request, Sequence]) -> Outcome:
        """See `Executor`."""
        started = perf_counter()
        logits = self.forward(step)
        computed = perf_counter()
        tokens = self.sample(step, logits, sequences)
        return Outcome(step.sampled, tokens, computed - started, perf_counter() - computed)

    def forward(self, step: PreparedStep) -> Tensor:
        """Logits of the sampled rows, [sampled, vocabulary] float32."""
        return self.model.forward(step.inputs, self.cache)

    @torch.inference_mode()
    def sample(self, step: PreparedStep, logits: Tensor, sequences: Mapping[Request, Sequence]) -> Integers:
        """The new token of each sampled row; the decode rows go on with theirs."""
        for row in np.flatnonzero(step.positions < step.settings["guarded_until"]):
            logits[row, list(sequences[step.sampled[row]].end_ids)] = -torch.inf
        tokens = sample(logits, step.settings, step.positions)
        self._rows.advance(tokens[: step.num_decodes])
        return tokens

    def _inputs(self, parts: "list[_ChunkArrays]") -> ForwardInputs:
        rows, num_decodes = self._rows, len(self._rows)
        starts = num_decodes + np.cumsum([0] + [len(part.positions) for part in parts])
        slots = np.concatenate([rows.slots(), *(part.slots for part in parts)])
        sampled = [start - 1 for start, part in zip(starts[1:], parts, strict=True) if part.chunk.samples]
        return ForwardInputs(
            token_ids=self._tensor(np.concatenate([rows.token_ids, *(part.token_ids for part in parts)])),
            positions=self._tensor(np.concatenate([rows.positions, *(part.positions for part in parts)])),
            slots=self._tensor(slots),
            num_decodes=num_decodes,
            groups=self._groups(),
            chunks=tuple(self._chunk(part, int(start)) for part, start in zip(parts, starts[:-1], strict=True)),
            sampled_rows=self._tensor(np.append(np.arange(num_decodes), sampled).astype(np.int64)) if parts else None,
        )

    def _groups(self) -> tuple[DecodeGroup, ...]:
        contexts, tables = self._rows.positions + 1, self._rows.tables
        if not len(contexts):
            return ()
        groups = length_groups(contexts, WASTE_LIMIT_TOKENS)
        if groups is None:
            return (self._group(contexts, tables, None),)
        return tuple(self._group(contexts[rows], tables[rows], rows) for rows in groups)

    def _group(self, contexts: Integers, tables: Integers, rows: Integers | None) -> DecodeGroup:
        blocks = -(-int(contexts.max()) // self._block_size)
        places, window = np.arange(blocks * self._block_size), self.model.shape.sliding_window
        unseen = places >= contexts[:, None]
        if window is not None:
            unseen |= places < contexts[:, None] - window
        mask = self._tensor(np.where(unseen, -np.inf, 0.0).astype(np.float32)).to(self.model.weights.dtype)
        return DecodeGroup(
            rows=None if rows is None else self._tensor(rows),
            tables=self._tensor(np.ascontiguousarray(tables[:, :blocks])),
            mask=mask[:, None, None, :],
        )

    def _chunk(self, part: "_ChunkArrays", start: int) -> PrefillChunk:
        return PrefillChunk(start, len(part.positions), part.chunk.start, self._tensor(part.table))

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        """An array on the model's device."""
        return torch.from_numpy(array).to(self.device)


class _ChunkArrays:
    """A chunk's tokens with their positions and cache slots; blocks the request no longer owns are the null block."""

    def __init__(self, chunk: Chunk, sequence: Sequence, block_size: int) -> None:
        end = chunk.start + chunk.num_tokens
        self.chunk, self.sequence = chunk, sequence
        self.token_ids = np.array(sequence.token_ids[chunk.start : end], np.int64)
        self.positions = np.arange(chunk.start, end)
        self.table = np.zeros(-(-end // block_size), np.int64)
        owned = chunk.request.block_ids[: len(self.table)]
        self.table[: len(owned)] = owned
        self.slots = self.table[self.positions // block_size] * block_size + self.positions % block_size
