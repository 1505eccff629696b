"""The engine: one object that owns model, tokenizer, scheduler and cache, and moves every request on step by step.

`LLM.step` runs one batch and measures its phases; it reads no wall clock otherwise. What a step's tokens and ends are
stamped with is the caller's.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, fields, replace
from time import perf_counter
from typing import Any, Literal, Self

import numpy as np
import torch

from engine.core.batch import Batch
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.sampling_params import MAX_SEED, SamplingParams
from engine.core.scheduler import Scheduler
from engine.execution.checkpoint import EMBEDDED_MODEL, open_checkpoint
from engine.execution.decode_rows import Integers
from engine.execution.kv_cache import blocks_within, check_memory
from engine.execution.model import Llama
from engine.execution.runner import Runner
from engine.execution.sequence import Sequence
from engine.execution.weights import load_weights, torch_dtype
from engine.serving.detokenizer import Detokenizer
from engine.serving.tokenizer import Tokenizer, load_tokenizer
from roofline.errors import CapacityError, InputError

FinishReason = Literal["stop", "length", "abort"]
Prompt = str | Items[int]

DEFAULT_KV_MEMORY_BYTES = 1 << 30
MAX_THREADS = 1024  # torch starts as many as it is told, until the process dies of it
# A prefill chunk stalls every decode of its step: 512 tokens take this engine's CPU about half a second.
_CPU_DEFAULTS = {"max_num_seqs": 64, "max_num_batched_tokens": 512}


@dataclass(frozen=True, slots=True)
class StepTimings:
    """Seconds that the phases of one step took; what else the step did is bookkeeping."""

    schedule_s: float
    prepare_s: float
    device_s: float
    sample_s: float


@dataclass(frozen=True, slots=True)
class Completion:
    """A request that ended. `text` is without end tokens and stop string, empty where the engine has no tokenizer."""

    request: Request
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did: its batch, the phases' times, the new token of each request that got one, and who ended."""

    batch: Batch
    timings: StepTimings
    tokens: dict[Request, int]
    completions: tuple[Completion, ...]

    @property
    def finished(self) -> tuple[tuple[Request, FinishReason], ...]:
        """Who ended, and why."""
        return tuple((completion.request, completion.finish_reason) for completion in self.completions)


@dataclass(frozen=True, slots=True)
class StreamPart:
    """New text of a streamed request, after `num_tokens` tokens in all; the last part has the finish reason."""

    text: str
    num_tokens: int
    finish_reason: FinishReason | None = None


class LLM:
    """A model being served.

    `seed` feeds the seeds of requests that bring none. Raises `InputError` where the config asks for more context than
    the model has.
    """

    def __init__(self, model: Llama, tokenizer: Tokenizer | None, config: EngineConfig, seed: int = 0) -> None:
        if config.max_model_len > model.shape.max_position:
            raise InputError(
                f"max_model_len is {config.max_model_len}, but {model.shape.name} has a context of "
                f"{model.shape.max_position} tokens; lower it to that."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.scheduler = Scheduler(config)
        self._runner = Runner(model, config)
        self._sequences: dict[Request, Sequence] = {}
        self._detokenizers: dict[Request, Detokenizer] = {}
        self._ended: tuple[list[Request], list[Request]] = ([], [])  # in this step, in the one before
        self._ahead: Batch | None = None  # asynchronous scheduling: decided before the results of the last step
        self._seeds = np.random.default_rng(seed)
        self._num_added = 0

    @classmethod
    def load(
        cls,
        model: str = EMBEDDED_MODEL,
        *,
        dtype: str = "fp32",
        num_threads: int | None = None,
        kv_memory_bytes: int = DEFAULT_KV_MEMORY_BYTES,
        **settings: Any,
    ) -> Self:
        """Load a model by name or path (`open_checkpoint`) and make the engine ready.

        `settings` are fields of `EngineConfig`; without `num_blocks` the KV pool gets `kv_memory_bytes`. float32 is the
        default because a CPU without bfloat16 instructions computes it 2 to 5 times faster. Raises `ModelError`,
        `CapacityError` or `InputError`.
        """
        if num_threads is not None:
            if not 1 <= num_threads <= MAX_THREADS:
                raise InputError(f"threads is {num_threads}; it must be from 1 to {MAX_THREADS}.")
            torch.set_num_threads(num_threads)
        number_format = torch_dtype(dtype)
        checkpoint = open_checkpoint(model)
        shape = checkpoint.shape
        defaults = {**_CPU_DEFAULTS, "max_model_len": shape.max_position}
        if "num_blocks" not in settings:
            block_size = settings.get("block_size", EngineConfig.__dataclass_fields__["block_size"].default)
            defaults["num_blocks"] = blocks_within(kv_memory_bytes, shape, block_size, number_format)
        config = _config({**defaults, **settings})
        check_memory(config.num_blocks, shape, config.block_size, number_format)
        return cls(Llama(shape, load_weights(checkpoint, number_format)), load_tokenizer(checkpoint), config)

    @property
    def has_work(self) -> bool:
        """True while a step would do something."""
        return self.scheduler.has_work or self._ahead is not None

    @property
    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer; raises `InputError` where the engine was built without one."""
        if self.tokenizer is None:
            raise InputError("the model has no tokenizer, so it takes and gives token ids only.")
        return self.tokenizer

    def add(
        self,
        prompt_ids: Items[int],
        params: SamplingParams,
        request_id: str | None = None,
        arrival_s: float = 0.0,
        priority: int = 0,
    ) -> Request:
        """Queue a request.

        Raises `InputError` for a prompt that is empty, beyond the context or not of the model's tokens, and
        `CapacityError` for a request that the KV pool could never hold.
        """
        self._check(prompt_ids, params)
        self._num_added += 1
        room = self.config.max_model_len - len(prompt_ids)
        request = Request(
            request_id=request_id or f"request-{self._num_added}",
            num_prompt_tokens=len(prompt_ids),
            max_tokens=min(params.max_tokens, room),
            arrival_s=arrival_s,
            priority=priority,
        )
        if params.seed is None:
            params = replace(params, seed=int(self._seeds.integers(MAX_SEED)))
        sequence = Sequence(request, params, list(prompt_ids), self._end_ids(params))
        if self.config.enable_prefix_caching:
            sequence.extend_keys(self.config.block_size)
        self._sequences[request] = sequence
        if params.stop:
            self._detokenizers[request] = self.text_tokenizer.detokenizer(params.stop)
        self.scheduler.add(request)
        return request

    def abort(self, request: Request) -> Completion | None:
        """End a request early; None if it has ended already."""
        if request not in self._sequences or request in self._ended[0] or request in self._ended[1]:
            return None
        self.scheduler.abort(request)
        return self._completion(self._sequences[request], "abort")

    def step(self) -> StepResult:
        """Run one batch: schedule, prepare, compute, sample, and tell the scheduler who ended."""
        self._forget_ended()
        started = perf_counter()
        batch = self._ahead or self.scheduler.schedule()
        self._ahead = None
        scheduled = perf_counter()
        if batch.is_empty:
            return StepResult(batch, StepTimings(scheduled - started, 0.0, 0.0, 0.0), {}, ())
        prepared = self._runner.prepare(batch, self._sequences)
        prepared_at = perf_counter()
        self._decide_ahead()
        decided = perf_counter()
        logits = self._runner.forward(prepared)
        computed = perf_counter()
        tokens = self._runner.sample(prepared, logits, self._sequences)
        timings = StepTimings(
            schedule_s=scheduled - started + decided - prepared_at,
            prepare_s=prepared_at - scheduled,
            device_s=computed - decided,
            sample_s=perf_counter() - computed,
        )
        new_tokens, completions = self._settle(batch, prepared.sampled, tokens)
        return StepResult(batch, timings, new_tokens, completions)

    def generate(
        self, prompts: Items[Prompt], params: SamplingParams | Items[SamplingParams] | None = None
    ) -> list[Completion]:
        """Complete all prompts (texts or token ids), in their order; nothing runs if one of them cannot."""
        ids = [self._ids(prompt) for prompt in prompts]
        each = [params or SamplingParams()] * len(ids) if not isinstance(params, Items) else list(params)
        if len(each) != len(ids):
            raise InputError(f"{len(each)} sampling params for {len(ids)} prompts; give one for all or one for each.")
        for prompt_ids, own in zip(ids, each, strict=True):
            self._check(prompt_ids, own)
        requests = [self.add(prompt_ids, own) for prompt_ids, own in zip(ids, each, strict=True)]
        done: dict[Request, Completion] = {}
        while not all(request in done for request in requests):
            done |= {completion.request: completion for completion in self.step().completions}
        return [done[request] for request in requests]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None) -> Iterator[StreamPart]:
        """Complete one prompt, yielding its text as it comes; abandoning the iterator aborts the request."""
        params = params or SamplingParams()
        request = self.add(self._ids(prompt), params)
        text = self._detokenizers.setdefault(request, self.text_tokenizer.detokenizer(params.stop))
        return self._parts(request, text)

    def _parts(self, request: Request, text: Detokenizer) -> Iterator[StreamPart]:
        num_tokens = 0
        try:
            while True:
                result = self.step()
                num_tokens += request in result.tokens
                reason = dict(result.finished).get(request)
                piece = text.take()
                if piece or reason:
                    yield StreamPart(piece, num_tokens, reason)
                if reason:
                    return
        finally:
            self.abort(request)

    def _decide_ahead(self) -> None:
        """Asynchronous scheduling: decide the next batch before this one's tokens are known.

        An empty decision is none: by the next step the results of this one are in.
        """
        if self.config.async_scheduling:
            batch = self.scheduler.schedule()
            self._ahead = None if batch.is_empty else batch

    def _settle(
        self, batch: Batch, requests: Items[Request], sampled: Integers
    ) -> tuple[dict[Request, int], tuple[Completion, ...]]:
        """Append each request's token, find who ended, and tell the scheduler."""
        voided = self.scheduler.voided(batch)
        tokens: dict[Request, int] = {}
        completions = []
        for request, token in zip(requests, sampled.tolist(), strict=True):
            if request in voided:
                continue
            tokens[request] = token
            sequence = self._sequences[request]
            reason = self._append(sequence, token)
            if reason:
                completions.append(self._completion(sequence, reason))
        self.scheduler.complete(batch, finished=[completion.request for completion in completions])
        return tokens, tuple(completions)

    def _append(self, sequence: Sequence, token: int) -> FinishReason | None:
        """Add a token to its sequence; say why it was the last, if it was."""
        sequence.token_ids.append(token)
        request, num_output = sequence.request, len(sequence.token_ids) - sequence.request.num_prompt_tokens
        if self.config.enable_prefix_caching and len(sequence.token_ids) % self.config.block_size == 0:
            sequence.extend_keys(self.config.block_size)
        may_stop = num_output >= sequence.params.min_tokens
        if may_stop and token in sequence.end_ids:
            return "stop"
        text = self._detokenizers.get(request)
        if text is not None:
            text.push(token, may_stop)
            if text.stopped:
                return "stop"
        return "length" if num_output >= request.max_tokens else None

    def _completion(self, sequence: Sequence, reason: FinishReason) -> Completion:
        """Close a sequence; its tokens stay known for the steps that may still name it."""
        self._ended[0].append(sequence.request)
        token_ids = sequence.output_ids
        text = self._detokenizers.pop(sequence.request, None)
        if text is not None:
            text.finish()
            words = text.text
        else:
            shown = token_ids[:-1] if reason == "stop" else token_ids
            words = self.tokenizer.decode(shown) if self.tokenizer else ""
        return Completion(sequence.request, tuple(token_ids), words, reason)

    def _forget_ended(self) -> None:
        """Drop what ended two steps ago: a batch decided ahead may still run a row of what ended one step ago."""
        now, before = self._ended
        for request in before:
            del self._sequences[request]
        self._ended = ([], now)

    def _check(self, prompt_ids: Items[int], params: SamplingParams) -> None:
        """Raise for what could never run; see `add`."""
        context, vocabulary = self.config.max_model_len, self.model.shape.vocab_size
        if not len(prompt_ids):
            raise InputError("the prompt is empty; give at least one token.")
        if len(prompt_ids) >= context:
            raise InputError(
                f"the prompt has {len(prompt_ids)} tokens, but the context is {context} and one must be left for the "
                "answer; shorten it or raise max_model_len."
            )
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < vocabulary:
            raise InputError(f"the prompt has token ids outside 0 to {vocabulary - 1}; encode it for this model.")
        longest = min(len(prompt_ids) + params.max_tokens, context)
        if longest - 1 + self.config.num_lookahead_tokens > self.config.kv_capacity_tokens:
            raise CapacityError(
                f"a request of {len(prompt_ids)} prompt tokens and up to {longest - len(prompt_ids)} output tokens "
                f"does not fit the KV cache of {self.config.kv_capacity_tokens} tokens ({self.config.usable_blocks} "
                f"blocks of {self.config.block_size}); raise num_blocks or the KV memory, or lower max_tokens."
            )
        if params.stop and self.tokenizer is None:
            raise InputError("stop strings need a tokenizer, and the engine was built without one.")

    def _end_ids(self, params: SamplingParams) -> frozenset[int]:
        model_ends = self.tokenizer.end_ids if self.tokenizer and not params.ignore_eos else frozenset[int]()
        return model_ends | frozenset(params.stop_token_ids)

    def _ids(self, prompt: Prompt) -> Items[int]:
        return self.text_tokenizer.encode(prompt) if isinstance(prompt, str) else prompt


def _config(settings: Mapping[str, Any]) -> EngineConfig:
    known = {field.name for field in fields(EngineConfig)}
    if unknown := settings.keys() - known:
        raise InputError(f"engine setting {sorted(unknown)[0]!r} is not known; known are {', '.join(sorted(known))}.")
    return EngineConfig(**settings)
