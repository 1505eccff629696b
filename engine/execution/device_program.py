"""What the device does in a step, on memory that stays where it is: so a graph can capture a decode step whole."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from engine.execution.device_attention import DeviceAttention
from engine.execution.device_state import DeviceState, slots_in
from engine.execution.kv_cache import KVCache
from engine.execution.model import Llama
from engine.kernels.paged_prefill import Chunks
from engine.kernels.paged_shape import AttentionOptions
from engine.kernels.sampling import Filters, sample


class Settings(NamedTuple):
    """How each row's token is drawn: columns of [rows], the first four of them `Filters`."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    seeds: Tensor

    def sample(self, logits: Tensor, positions: Tensor) -> Tensor:
        """A token a row; positions: [rows], where it will stand."""
        return sample(logits, Filters(self.temperature, self.top_k, self.top_p, self.min_p), self.seeds, positions)


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
        state.advance(self._settings(num_rows).sample(logits, contexts))

    @torch.inference_mode()
    def mixed(self, num_rows: int, parts: Mapping[str, Tensor], longest: int) -> None:
        """A step that is more than a plain decode; `parts` as `step_arrays` names them, `longest` of its chunks.

        The first rows yield a token each as in `decode`, and each sampling chunk a fresh token.
        """
        logits = self.mixed_logits(num_rows, parts, longest)
        if not len(logits):
            return  # chunks in the middle of their prompts, alone
        if "guarded_rows" in parts:
            ends = parts["guarded_rows"].long(), parts["guarded_ids"].long()
            logits.index_put_(ends, logits.new_full((), -torch.inf))
        state, settings = self.state, self._settings(num_rows)
        positions = state.positions[:num_rows] + 1
        if longest:
            columns = zip(Settings._fields, settings, strict=True)
            settings = Settings(*(torch.cat((column, parts[name])) for name, column in columns))
            positions = torch.cat((positions, parts["new_positions"]))
        sampled = settings.sample(logits, positions)
        state.advance(sampled[:num_rows])
        state.fresh_ids[: len(sampled) - num_rows] = sampled[num_rows:]

    @torch.inference_mode()
    def mixed_logits(self, num_rows: int, parts: Mapping[str, Tensor], longest: int) -> Tensor:
        """Logits of the first rows and of the chunks that sample, in the weights' format; see `mixed`."""
        token_ids = self.state.token_ids[:num_rows]
        if not longest:
            return self.model.run(token_ids, self._attention(num_rows, None, None), None)
        chunks = Chunks(parts["tables"], parts["starts"], parts["contexts"], longest)
        attention = self._attention(num_rows, chunks, parts["token_ids"])
        return self.model.run(torch.cat((token_ids, parts["token_ids"])), attention, parts["sampled_rows"])

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
