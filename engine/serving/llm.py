"""The engine: one object that owns model, tokenizer, scheduler and cache, and moves every request on step by step.

`LLM.step` runs one batch and measures its phases; it reads no wall clock otherwise. What a step's tokens and ends are
stamped with is the caller's.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from engine.core.batch import Batch
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.sampling_params import MAX_SEED, SamplingParams
from engine.core.scheduler import Scheduler
from engine.execution.checkpoint import EMBEDDED_MODEL
from engine.execution.model import Llama
from engine.execution.runner import Runner
from engine.execution.sequence import Sequence
from engine.execution.step import Executor
from engine.serving.detokenizer import Detokenizer
from engine.serving.loading import load_parts
from engine.serving.request_check import check_request
from engine.serving.results import Completion, FinishReason, StepResult, StepTimings, StreamPart
from engine.serving.tokenizer import Tokenizer
from roofline.errors import InputError

Prompt = str | Items[int]


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch that its runner has begun."""

    batch: Batch
    step: Any


class LLM:
    """A model being served.

    `seed` feeds the seeds of requests that bring none; `runner` executes the batches, the CPU's own without one. Raises
    `InputError` where the config asks for more context than the model has.
    """

    def __init__(
        self,
        model: Llama,
        tokenizer: Tokenizer | None,
        config: EngineConfig,
        seed: int = 0,
        runner: Executor | None = None,
    ) -> None:
        if config.max_model_len > model.shape.max_position:
            raise InputError(
                f"max_model_len is {config.max_model_len}, but {model.shape.name} has a context of "
                f"{model.shape.max_position} tokens; lower it to that."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.scheduler = Scheduler(config)
        self._runner = runner or Runner(model, config)
        self._sequences: dict[Request, Sequence] = {}
        self._detokenizers: dict[Request, Detokenizer] = {}
        self._ended: tuple[list[Request], list[Request]] = ([], [])  # in this step, in the one before
        self._ahead: Batch | None = None  # asynchronous scheduling: decided before the results of the last step
        self._flight: _Flight | None = None  # and begun before them, where the runner can
        self._seeds = np.random.default_rng(seed)
        self._num_added = 0

    @classmethod
    def load(cls, model: str = EMBEDDED_MODEL, **settings: Any) -> Self:
        """Load a model by name or path and make the engine ready.

        `settings` are fields of `LoadOptions` and of `EngineConfig`; what is not given suits the device. Raises
        `ModelError`, `CapacityError` or `InputError`.
        """
        parts = load_parts(model, settings)
        return cls(parts.model, parts.tokenizer, parts.config, parts.seed, parts.runner)

    @property
    def has_work(self) -> bool:
        """True while a step would do something."""
        return self.scheduler.has_work or self._ahead is not None or self._flight is not None

    @property
    def kv_dtype(self) -> torch.dtype:
        """Number format of the KV cache."""
        return self._runner.cache.keys[0].dtype

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
        """Run one batch: schedule, launch, collect its tokens, and tell the scheduler who ended.

        With asynchronous scheduling the next batch is decided, and launched where the runner can, before this one's
        tokens are known.
        """
        self._forget_ended()
        watch = _Watch()
        flight, self._flight = self._flight, None
        if flight is None:
            batch, self._ahead = self._ahead or watch.scheduling(self.scheduler.schedule), None
            if batch.is_empty:
                return StepResult(batch, StepTimings(watch.schedule_s, 0.0, 0.0, 0.0), {}, ())
            flight = self._launch(batch, watch)
        if self.config.async_scheduling:
            self._decide_ahead(watch)
        outcome = self._runner.collect(flight.step, self._sequences)
        timings = StepTimings(watch.schedule_s, watch.prepare_s, outcome.device_s, outcome.sample_s)
        tokens, completions = self._settle(flight.batch, outcome.sampled, outcome.tokens)
        return StepResult(flight.batch, timings, tokens, completions, outcome.kind)

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

    def _launch(self, batch: Batch, watch: "_Watch") -> _Flight:
        return _Flight(batch, watch.preparing(lambda: self._runner.launch(batch, self._sequences)))

    def _decide_ahead(self, watch: "_Watch") -> None:
        """Decide the next batch before this one's tokens are known.

        An empty decision is none: by the next step the results of this one are in.
        """
        batch = watch.scheduling(self.scheduler.schedule)
        if batch.is_empty:
            return
        if self._runner.launches_ahead:
            self._flight = self._launch(batch, watch)
        else:
            self._ahead = batch

    def _settle(
        self, batch: Batch, requests: Items[Request], sampled: NDArray[np.integer[Any]]
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
        check_request(prompt_ids, params, self.config, self.model.shape.vocab_size)
        if params.stop and self.tokenizer is None:
            raise InputError("stop strings need a tokenizer, and the engine was built without one.")

    def _end_ids(self, params: SamplingParams) -> frozenset[int]:
        model_ends = self.tokenizer.end_ids if self.tokenizer and not params.ignore_eos else frozenset[int]()
        return model_ends | frozenset(params.stop_token_ids)

    def _ids(self, prompt: Prompt) -> Items[int]:
        return self.text_tokenizer.encode(prompt) if isinstance(prompt, str) else prompt


class _Watch:
    """Seconds that one step spends on deciding and on preparing, whichever batch it is for."""

    def __init__(self) -> None:
        self.schedule_s = self.prepare_s = 0.0

    def scheduling(self, work: Callable[[], Batch]) -> Batch:
        """Do the work, its time counted as scheduling."""
        started = perf_counter()
        batch = work()
        self.schedule_s += perf_counter() - started
        return batch

    def preparing(self, work: Callable[[], Any]) -> Any:
        """Do the work, its time counted as preparing."""
        started = perf_counter()
        done = work()
        self.prepare_s += perf_counter() - started
        return done
