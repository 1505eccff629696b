"""`roofline techniques`: what each technique does to the same decode step, the same prompt, the same cache."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from roofline import console
from roofline.analytic import AnalyticStepTime
from roofline.errors import InputError
from roofline.forward_pass import Execution
from roofline.model_shape import ModelShape
from roofline.screen.tables import columns
from roofline.step_time import BatchWork, StepTimeModel
from roofline.techniques import (
    KvKeep,
    Speculation,
    attention_traffic,
    chunked_prefill,
    extend_context,
    prompt_passes,
)

WEIGHTS, CACHE = ("fp8", "int4-g128"), "fp8"  # formats to compare with


@dataclass(frozen=True, slots=True)
class Question:
    """A batch of sequences that decode, a prompt that arrives, and how far each technique is taken."""

    batch: int
    context: int
    prompt: int
    speculation: Speculation
    hit_ratio: float
    chunk: int
    keep: KvKeep
    longer: int  # context to stretch to

    def __post_init__(self) -> None:
        """Refuse a batch, a context or a prompt of nothing."""
        for name in ("batch", "context", "prompt", "chunk"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    @property
    def decode(self) -> BatchWork:
        """One step of the batch."""
        size, context = self.batch, self.context
        return BatchWork(
            num_decode_seqs=size, decode_tokens=size, decode_kv_tokens=size * context, decode_kv_max=context
        )


@dataclass(frozen=True, slots=True)
class Effect:
    """One figure without and with a technique; smaller is better."""

    technique: str
    figure: str
    unit: str
    without: float
    with_it: float
    remark: str = ""


def show_techniques(base: AnalyticStepTime, question: Question, as_json: bool) -> None:
    """Print every technique's effect on `base`, each alone."""
    longest = max(question.context, question.prompt)
    if longest > base.shape.max_position:
        raise InputError(
            f"sequences of {longest:,} tokens are longer than the {base.shape.max_position:,} that {base.shape.name} "
            "reads; ask for shorter ones, or see what --longer takes."
        )
    effects = [*_formats(base, question), *_kernels(base, question), *_scheduling(base, question)]
    effects += _caches(base, question)
    if as_json:
        rows = [asdict(effect) for effect in effects]
        console.print_json({"model": base.shape.name, "hardware": base.hardware.name, "techniques": rows,
                            "provenance": "analytic"})  # fmt: skip
        return
    split = f", {base.parallelism.text}" if base.parallelism.text else ""
    title = (
        f"{base.shape.name} on {base.hardware.name}{split}: {question.batch} sequences of {question.context:,} tokens"
    )
    table = columns(title, ("technique", "of", "without", "with", "ratio"))
    for one in effects:
        figures = (_short(one.without), f"{_short(one.with_it)} {one.unit}", f"{one.with_it / one.without:.2f}")
        table.add_row(one.technique, one.figure, *figures)
    console.out.print(table)
    for one in effects:
        if one.remark:
            console.out.print(f"{one.technique}: {console.escape(one.remark)}.")
    console.out.print(
        "Each alone, on the same pass. Analytic: datasheet peaks and efficiency priors, nothing measured."
    )


def _short(figure: float) -> str:
    """Three digits, or all of a large number."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _ms(model: StepTimeModel, work: BatchWork) -> float:
    return 1e3 * model.seconds(work)


def _prompt_ms(model: StepTimeModel, passes: tuple[BatchWork, ...]) -> float:
    return sum(_ms(model, work) for work in passes)


def _formats(base: AnalyticStepTime, question: Question) -> Iterator[Effect]:
    step_ms = _ms(base, question.decode)
    for name in WEIGHTS:
        if name != base.weight_dtype:
            narrow = replace(base, weight_dtype=name)
            yield Effect(f"{name} weights", "decode step", "ms", step_ms, _ms(narrow, question.decode))
    if base.kv_dtype != CACHE:
        narrow = replace(base, kv_dtype=CACHE)
        yield Effect(f"{CACHE} KV cache", "decode step", "ms", step_ms, _ms(narrow, question.decode))


def _kernels(base: AnalyticStepTime, question: Question) -> Iterator[Effect]:
    """What an engine does already: the figure without it is that of an engine that does not."""
    passes, decode = prompt_passes(question.prompt), question.decode
    eager = replace(base, execution=Execution(graphs=False))
    naive = replace(base, execution=Execution(attention="naive"))
    unfused = replace(base, execution=Execution(fused=False))
    yield Effect("CUDA graphs", "decode step", "ms", _ms(eager, decode), _ms(base, decode))
    yield Effect("fused kernels", "decode step", "ms", _ms(unfused, decode), _ms(base, decode))
    yield Effect("FlashAttention", "prompt", "ms", _prompt_ms(naive, passes), _prompt_ms(base, passes))
    scores = attention_traffic(base.shape, question.prompt, 0)
    yield Effect("FlashAttention", "bytes, a layer", "MB", scores.naive / 1e6, scores.flash / 1e6)
    splits = attention_traffic(base.shape, 1, question.context)
    remark = "partial answers cost bytes; what they buy is work for more of the chip, which is not in these figures"
    yield Effect("FlashDecoding", "bytes, a layer", "MB", splits.flash / 1e6, splits.flash_decoding / 1e6, remark)


def _scheduling(base: AnalyticStepTime, question: Question) -> Iterator[Effect]:
    decode, speculation = question.decode, question.speculation
    batch = speculation.break_even_batch(base, question.context)
    told = "gains at every batch up to 4,096" if batch is None else f"gains up to a batch of {batch:,}"
    per_token_ms = 1e3 * speculation.step_seconds(base, decode) / speculation.tokens_per_step
    remark = f"{speculation.tokens_per_step:.2f} tokens a step; {told}"
    yield Effect("speculation", "token", "ms", _ms(base, decode), per_token_ms, remark)
    whole = prompt_passes(question.prompt)
    cached = prompt_passes(question.prompt, hit_ratio=question.hit_ratio)
    yield Effect("prefix cache", "prompt", "ms", _prompt_ms(base, whole), _prompt_ms(base, cached))
    one, many = (
        chunked_prefill(base, passes, decode) for passes in (whole, prompt_passes(question.prompt, question.chunk))
    )
    remark = f"{many.steps} steps; the prompt takes {1e3 * many.ttft_s:,.1f} ms where it took {1e3 * one.ttft_s:,.1f}"
    yield Effect("chunked prefill", "longest step", "ms", 1e3 * one.longest_step_s, 1e3 * many.longest_step_s, remark)


def _caches(base: AnalyticStepTime, question: Question) -> Iterator[Effect]:
    shape, keep = base.shape, question.keep
    kept = keep.decode_work(question.decode)
    yield Effect("part of the cache", "decode step", "ms", _ms(base, question.decode), _ms(base, kept))
    kept_gb = shape.kv_bytes(keep.tokens(question.context), base.kv_dtype) / 1e9
    whole_gb = shape.kv_bytes(question.context, base.kv_dtype) / 1e9
    yield Effect("part of the cache", "cache, a sequence", "GB", whole_gb, kept_gb)
    yield from _windows(shape, question, base.kv_dtype)
    for method in ("ntk", "yarn"):
        longer = extend_context(shape, question.longer, method, base.kv_dtype)
        told = longer.remark if longer.feasible else f"{longer.remark}, and this is {longer.factor:.3g}"
        full_gb = shape.kv_bytes(shape.max_position, base.kv_dtype) / 1e9
        remark = f"{question.longer:,} tokens; {told}"
        yield Effect(f"longer by {method}", "cache, a sequence", "GB", full_gb, longer.kv_bytes / 1e9, remark)


def _windows(shape: ModelShape, question: Question, kv_dtype: str) -> Iterator[Effect]:
    """The model's own windows, against the same layers without them."""
    if shape.sliding_window is not None:
        full = replace(shape, sliding_window=None, sliding_layers=0)
        without, with_it = (one.kv_bytes(question.context, kv_dtype) / 1e9 for one in (full, shape))
        yield Effect("its windows", "cache, a sequence", "GB", without, with_it)
