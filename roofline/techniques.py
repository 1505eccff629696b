"""What techniques do to an estimate: speculation, prefix caching, chunked prefill, kernels, longer contexts.

Each takes a `StepTimeModel` or a shape and returns plain figures. Number formats, parallelism, graphs, fusion and the
tokens that a cache keeps are arguments of the estimate itself: `AnalyticStepTime` and `Execution`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, log

from roofline.errors import InputError
from roofline.formats import bytes_per_element
from roofline.model_shape import ModelShape
from roofline.step_time import BatchWork, StepTimeModel, chunk_attn_pairs

MAX_BATCH = 4096  # up to which a break-even batch is looked for


@dataclass(frozen=True, slots=True)
class Speculation:
    """Drafts of `drafts` tokens, each accepted with probability `acceptance` if those before it were.

    A `draft` model takes a step a token; None for drafts that cost nothing (n-grams, or heads on the same pass).
    """

    acceptance: float
    drafts: int
    draft: StepTimeModel | None = None

    def __post_init__(self) -> None:
        """Refuse a probability that is none, and no drafts."""
        if not 0 <= self.acceptance <= 1:
            raise InputError(f"acceptance is {self.acceptance}; it must be between 0 and 1.")
        if self.drafts < 1:
            raise InputError(f"speculation drafts {self.drafts} tokens; it must be at least 1.")

    @property
    def tokens_per_step(self) -> float:
        """Expected tokens of a sequence and step, (1 - a^(k + 1)) / (1 - a): those accepted and one more.

        Leviathan et al., Fast Inference from Transformers via Speculative Decoding, equation 1.
        """
        return sum(self.acceptance**n for n in range(self.drafts + 1))

    def step_seconds(self, target: StepTimeModel, work: BatchWork) -> float:
        """One step of a decoding batch: the drafts one after another, then all of them verified in one pass."""
        verified = work._replace(decode_tokens=work.num_decode_seqs * (1 + self.drafts))
        drafting = 0.0 if self.draft is None else float(self.draft.decode_run_seconds(work, self.drafts).sum())
        return target.seconds(verified) + drafting

    def speedup(self, target: StepTimeModel, work: BatchWork) -> float:
        """Tokens a second over those without speculation; below 1 it costs more than it gives."""
        return self.tokens_per_step * target.seconds(work) / self.step_seconds(target, work)

    def break_even_batch(self, target: StepTimeModel, context: int) -> int | None:
        """The largest batch at that context which speculation does not slow down, when all smaller ones gain too.

        0 where a single sequence loses; None where every batch up to 4,096 gains.
        """
        batch = 1
        while batch <= MAX_BATCH and self.speedup(target, _decode(batch, context)) >= 1:
            batch *= 2
        if batch > MAX_BATCH:
            return None
        gains, loses = batch // 2, batch
        while loses - gains > 1:
            middle = (gains + loses) // 2
            better = self.speedup(target, _decode(middle, context)) >= 1
            gains, loses = (middle, loses) if better else (gains, middle)
        return gains


def prompt_passes(prompt_tokens: int, chunk_tokens: int | None = None, hit_ratio: float = 0.0) -> tuple[BatchWork, ...]:
    """The passes that a prompt takes alone: of at most `chunk_tokens` each, after the prefix found in the cache.

    `hit_ratio` of the prompt is cached; the last token is always computed, because its logits are needed.
    """
    if prompt_tokens < 1 or (chunk_tokens is not None and chunk_tokens < 1):
        raise InputError(f"prompt of {prompt_tokens} tokens in chunks of {chunk_tokens}: both must be at least 1.")
    if not 0 <= hit_ratio <= 1:
        raise InputError(f"prefix hit ratio is {hit_ratio}; it must be between 0 and 1.")
    done, passes = min(int(hit_ratio * prompt_tokens), prompt_tokens - 1), list[BatchWork]()
    while done < prompt_tokens:
        tokens = min(chunk_tokens or prompt_tokens, prompt_tokens - done)
        pairs = chunk_attn_pairs(tokens, done)
        passes.append(
            BatchWork(num_prefill_seqs=1, prefill_tokens=tokens, prefill_kv_tokens=done, prefill_attn_pairs=pairs)
        )
        done += tokens
    return tuple(passes)


@dataclass(frozen=True, slots=True)
class ChunkedPrefill:
    """A prompt computed beside decoding sequences: when it is done, and how long the others wait for a token."""

    ttft_s: float
    longest_step_s: float  # the worst inter-token latency that the decoding sequences see
    steps: int


def chunked_prefill(model: StepTimeModel, passes: Sequence[BatchWork], decoding: BatchWork) -> ChunkedPrefill:
    """Every pass of the prompt shares a step with the sequences that decode, whose contexts grow meanwhile."""
    steps = [_beside(chunk, decoding.after_decode_steps(step)) for step, chunk in enumerate(passes)]
    seconds = [model.seconds(work) for work in steps]
    return ChunkedPrefill(sum(seconds), max(seconds), len(seconds))


@dataclass(frozen=True, slots=True)
class AttentionTraffic:
    """Bytes of memory traffic of one layer's attention for one sequence, by how the kernel goes about it."""

    naive: float  # scores and probabilities written and read
    flash: float  # queries, keys, values and answers alone
    flash_decoding: float  # as flash, and the partial answers of the splits


def attention_traffic(
    shape: ModelShape, new_tokens: int, cached_tokens: int, splits: int = 8, dtype: str = "bf16"
) -> AttentionTraffic:
    """Of `new_tokens` queries on `cached_tokens`; FlashDecoding divides the keys into `splits` for more parallelism.

    Dao et al., FlashAttention; Dao et al., Flash-Decoding for long-context inference.
    """
    size = bytes_per_element(dtype)
    answer = shape.num_heads * (shape.mla.v_head_dim if shape.mla else shape.head_dim)
    flash = ((cached_tokens + new_tokens) * shape.kv_elements + new_tokens * (shape.q_size + answer)) * size
    scores = 4 * shape.num_heads * chunk_attn_pairs(new_tokens, cached_tokens) * size
    partial = 2 * splits * new_tokens * (answer + shape.num_heads) * bytes_per_element("fp32")  # written, then read
    return AttentionTraffic(flash + scores, flash, flash + (partial if splits > 1 else 0.0))


@dataclass(frozen=True, slots=True)
class ContextExtension:
    """Rotary positions stretched to a longer context: what it takes, and what a sequence of it costs.

    Whether answers stay good is not arithmetic: `remark` says what the method's authors claim.
    """

    method: str
    factor: float
    rope_theta: float  # after the change; unchanged where frequencies are scaled one by one
    attention_scale: float  # factor on the attention logits' temperature
    kv_bytes: int  # of one sequence of the new length
    feasible: bool
    remark: str


_CLAIMS = {
    # method: factor up to which its authors show it to work, and on what terms
    "ntk": (4.0, "without training, with a loss that grows with the factor"),
    "yarn": (32.0, "after a short fine-tuning; up to about 2 without"),
}


def extend_context(shape: ModelShape, tokens: int, method: str, kv_dtype: str = "bf16") -> ContextExtension:
    """What `tokens` of context need under `ntk` or `yarn`; a length that the model reads anyway needs nothing.

    NTK-aware: theta x factor^(d / (d - 2)). YaRN (Peng et al.): frequencies by wavelength, logits' temperature
    0.1 ln(factor) + 1. A model that its makers stretched already counts from its stretched length.
    """
    if method not in _CLAIMS:
        raise InputError(f"context extension {method!r} is not known; use one of {', '.join(_CLAIMS)}.")
    if tokens < 1:
        raise InputError(f"context of {tokens} tokens has no meaning; it must be at least 1.")
    factor = max(1.0, tokens / shape.max_position)
    rotated = shape.mla.qk_rope_head_dim if shape.mla else max(4, int(shape.head_dim * shape.rotary_fraction))
    shown, terms = _CLAIMS[method]
    theta = shape.rope_theta * (factor ** (rotated / (rotated - 2)) if method == "ntk" else 1.0)
    scale = 0.1 * log(factor) + 1 if method == "yarn" else 1.0
    remark = f"{method} is shown to work up to a factor of {shown:g}, {terms}" if factor > 1 else "no change is needed"
    return ContextExtension(method, factor, theta, scale, shape.kv_bytes(tokens, kv_dtype), factor <= shown, remark)


@dataclass(frozen=True, slots=True)
class KvKeep:
    """A cache that keeps part of the context: the first `sinks` tokens and a window, or a `ratio` of it all.

    StreamingLLM keeps sinks and a window; compression (H2O, SnapKV) keeps a ratio. 1 and no window keep everything.
    """

    sinks: int = 0
    window: int | None = None
    ratio: float = 1.0

    def __post_init__(self) -> None:
        """Refuse negative sinks, an empty window and a ratio that is none."""
        if self.sinks < 0 or (self.window is not None and self.window < 1) or not 0 < self.ratio <= 1:
            raise InputError(
                f"cache keeps {self.sinks} sinks, a window of {self.window} and a ratio of {self.ratio}; sinks must "
                "not be negative, the window at least 1, the ratio above 0 and at most 1."
            )

    def tokens(self, context: int) -> int:
        """Cached tokens of a sequence of `context`, never more than it has."""
        kept = ceil(context * self.ratio)
        return min(context, kept if self.window is None else min(kept, self.sinks + self.window))

    def decode_work(self, work: BatchWork) -> BatchWork:
        """The same decoding batch on what the cache keeps, contexts taken as equal."""
        mean = work.decode_kv_tokens / max(1, work.num_decode_seqs)
        kept = self.tokens(round(mean))
        longest = self.tokens(work.decode_kv_max)
        return work._replace(decode_kv_tokens=kept * work.num_decode_seqs, decode_kv_max=longest)


def pipeline_bubble(stages: int, micro_batches: float) -> float:
    """Share of the time that stages wait, when so many micro-batches pass them once: (p - 1) / (m + p - 1)."""
    if stages < 1 or not 0 < micro_batches < inf:
        raise InputError(f"{stages} stages and {micro_batches} micro-batches: both must be positive.")
    return (stages - 1) / (micro_batches + stages - 1)


def _decode(batch: int, context: int) -> BatchWork:
    return BatchWork(
        num_decode_seqs=batch, decode_tokens=batch, decode_kv_tokens=batch * context, decode_kv_max=context
    )


def _beside(chunk: BatchWork, decoding: BatchWork) -> BatchWork:
    return chunk._replace(
        num_decode_seqs=decoding.num_decode_seqs, decode_tokens=decoding.decode_tokens,
        decode_kv_tokens=decoding.decode_kv_tokens, decode_kv_max=decoding.decode_kv_max,
    )  # fmt: skip
