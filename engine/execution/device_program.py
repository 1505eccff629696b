"""What the device does in a step, on memory that stays where it is: so a graph can capture a decode step whole."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from engine.execution._stand_ins import sample
from engine.execution.device_attention import DeviceAttention
from engine.execution.device_state import DeviceState, slots_in
from engine.execution.kv_cache import KVCache
from engine.execution.model import Llama
from engine.kernels.paged_prefill import Chunks
from engine.kernels.paged_shape import AttentionOptions


class Settings(NamedTuple):
    """How each row's token is drawn, [rows] each, in the order that `sample` takes them."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seeds: Tensor


class DeviceProgram:
    """A model, its cache and the standing state of the decoding rows."""

    def __init__(self, model: Llama, state: DeviceState, cache: KVCache) -> None:
        self.model, self.state, self.cache = model, state, cache
        self._options = AttentionOptions(window=model.shape.sliding_window or 0)

    @torch.inference_mode()
    def decode(self, num_rows: int) -> None:
        """One token for each of the first rows, idle ones included; they move on by it."""
        state = self.state
        contexts = state.positions[:num_rows] + 1
        logits = self.model.run(state.token_ids[:num_rows], self._attention(num_rows, None, None), None)
        state.advance(sample(logits, *self._settings(num_rows), contexts))

    @torch.inference_mode()
    def mixed(self, num_rows: int, parts: Mapping[str, Tensor], longest: int) -> None:
        """A step that is more than a plain decode; `parts` as `step_arrays` names them, `longest` of its chunks.

        The first rows yield a token each as in `decode`, and each sampling chunk a fresh token.
        """
        state, token_ids = self.state, self.state.token_ids[:num_rows]
        chunks = Chunks(parts["tables"], parts["starts"], parts["contexts"], longest) if longest else None
        if chunks:
            token_ids = torch.cat((token_ids, parts["token_ids"]))
        attention = self._attention(num_rows, chunks, parts.get("token_ids"))
        logits = self.model.run(token_ids, attention, parts["sampled_rows"] if chunks else None)
        if "guarded_rows" in parts:
            logits.index_put_(
                (parts["guarded_rows"].long(), parts["guarded_ids"].long()), logits.new_full((), -torch.inf)
            )
        settings, positions = self._settings(num_rows), state.positions[:num_rows] + 1
        if chunks:
            columns = zip(Settings._fields, settings, strict=True)
            settings = Settings(*(torch.cat((column, parts[name])) for name, column in columns))
            positions = torch.cat((positions, parts["new_positions"]))
        sampled = sample(logits, *settings, positions)
        state.advance(sampled[:num_rows])
        state.fresh_ids[: len(sampled) - num_rows] = sampled[num_rows:]

    def _settings(self, num_rows: int) -> Settings:
        return Settings(*(getattr(self.state, name)[:num_rows] for name in Settings._fields))

    def _attention(self, num_rows: int, chunks: Chunks | None, chunk_tokens: Tensor | None) -> DeviceAttention:
        state = self.state
        positions, slots = state.positions[:num_rows], state.slots(num_rows)
        contexts = positions + 1
        if chunks and chunk_tokens is not None:
            chunk_positions, chunk_slots = token_places(chunks, len(chunk_tokens), state.block_size)
            positions, slots = torch.cat((positions, chunk_positions)), torch.cat((slots, chunk_slots))
        return DeviceAttention(
            rope=self.model.rope,
            cache=self.cache,
            options=self._options,
            positions=positions,
            slots=slots,
            tables=state.tables[:num_rows],
            contexts=contexts,
            chunks=chunks,
            eps=self.model.shape.rms_norm_eps,
        )


def token_places(chunks: Chunks, num_tokens: int, block_size: int) -> tuple[Tensor, Tensor]:
    """Position and cache slot of each of the chunks' tokens: [num_tokens] int32 each."""
    tokens = torch.arange(num_tokens, dtype=torch.int32, device=chunks.starts.device)
    owner = torch.searchsorted(chunks.starts[1:], tokens, right=True)
    positions = tokens - chunks.starts[owner] + chunks.contexts[owner]
    return positions, slots_in(chunks.tables[owner, positions // block_size], positions, block_size)
