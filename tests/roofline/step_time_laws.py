"""The laws that every `StepTimeModel` obeys, in one place: each implementation's test calls `check_step_time_laws`.

    def test_laws():
        check_step_time_laws(model)

A pass is drawn as chunks and groups of decoding sequences, so that its numbers agree with one another, and "more work"
is always work that a scheduler could really add.
"""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline.step_time import BatchWork, StepTimeModel, chunk_attn_pairs

# Rounding in a sum of a few terms; a real decrease is far larger.
RELATIVE_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Limits:
    """The largest pass that is drawn; a model with a narrow domain is given narrower ones."""

    chunks: int = 4
    chunk_tokens: int = 8192
    groups: int = 3
    group_sequences: int = 256
    drafts: int = 4
    context_tokens: int = 131_072


@dataclass(frozen=True)
class Chunk:
    tokens: int
    cached: int


@dataclass(frozen=True)
class Group:
    """Sequences that decode `tokens` each (more than one when speculating) on equal contexts."""

    sequences: int
    context: int
    tokens: int


@dataclass(frozen=True)
class Pass:
    chunks: tuple[Chunk, ...]
    groups: tuple[Group, ...]

    @property
    def work(self) -> BatchWork:
        return BatchWork(
            num_prefill_seqs=len(self.chunks),
            prefill_tokens=sum(c.tokens for c in self.chunks),
            prefill_kv_tokens=sum(c.cached for c in self.chunks),
            prefill_attn_pairs=sum(chunk_attn_pairs(c.tokens, c.cached) for c in self.chunks),
            num_decode_seqs=sum(g.sequences for g in self.groups),
            decode_tokens=sum(g.sequences * g.tokens for g in self.groups),
            decode_kv_tokens=sum(g.sequences * g.context for g in self.groups),
            decode_kv_max=max((g.context for g in self.groups), default=0),
        )


def chunks(limits: Limits) -> st.SearchStrategy[Chunk]:
    return st.builds(Chunk, st.integers(1, limits.chunk_tokens), st.integers(0, limits.context_tokens))


def groups(limits: Limits) -> st.SearchStrategy[Group]:
    sequences, context = st.integers(1, limits.group_sequences), st.integers(1, limits.context_tokens)
    return st.builds(Group, sequences, context, st.integers(1, 1 + limits.drafts))


def passes(limits: Limits) -> st.SearchStrategy[Pass]:
    """Passes with at least one token: prefill alone, decode alone, or both."""
    prefill = st.lists(chunks(limits), max_size=limits.chunks).map(tuple)
    decode = st.lists(groups(limits), max_size=limits.groups).map(tuple)
    return st.builds(Pass, prefill, decode).filter(lambda drawn: drawn.chunks or drawn.groups)


@st.composite
def larger_passes(draw: st.DrawFn, smaller: Pass, limits: Limits) -> Pass:
    """`smaller` with one amount of work raised."""
    kinds = ["new chunk", "new group"]
    kinds += ["longer chunk", "more cached"] if smaller.chunks else []
    kinds += ["more sequences", "longer context", "more drafts"] if smaller.groups else []
    kind = draw(st.sampled_from(kinds))
    if kind == "new chunk":
        return replace(smaller, chunks=(*smaller.chunks, draw(chunks(limits))))
    if kind == "new group":
        return replace(smaller, groups=(*smaller.groups, draw(groups(limits))))
    if kind in ("longer chunk", "more cached"):
        first, *rest = smaller.chunks
        if kind == "longer chunk":
            first = replace(first, tokens=first.tokens + draw(st.integers(1, limits.chunk_tokens)))
        else:
            first = replace(first, cached=first.cached + draw(st.integers(1, limits.context_tokens)))
        return replace(smaller, chunks=(first, *rest))
    group, *others = smaller.groups
    if kind == "more sequences":
        group = replace(group, sequences=group.sequences + draw(st.integers(1, limits.group_sequences)))
    elif kind == "longer context":
        group = replace(group, context=group.context + draw(st.integers(1, limits.context_tokens)))
    else:
        group = replace(group, tokens=group.tokens + draw(st.integers(1, limits.drafts)))
    return replace(smaller, groups=(group, *others))


def check_step_time_laws(model: StepTimeModel, limits: Limits | None = None, max_examples: int = 100) -> None:
    """Run every law on `model`; an `AssertionError` names the law and the pass that breaks it."""
    bounds = limits or Limits()

    @settings(max_examples=max_examples, deadline=None)
    @given(passes(bounds))
    def positive_and_finite(drawn: Pass) -> None:
        seconds = model.seconds(drawn.work)
        assert 0 < seconds < float("inf"), f"{seconds} s is no time for {drawn}"
        assert model.seconds(drawn.work) == seconds, f"two answers for {drawn}"

    @settings(max_examples=2 * max_examples, deadline=None)
    @given(st.data(), passes(bounds))
    def never_faster_with_more_work(data: st.DataObject, smaller: Pass) -> None:
        larger = data.draw(larger_passes(smaller, bounds))
        before, after = model.seconds(smaller.work), model.seconds(larger.work)
        assert after >= before * (1 - RELATIVE_TOLERANCE), f"{after} s for {larger} is less than {before} s"

    @settings(max_examples=max_examples, deadline=None)
    @given(st.lists(groups(bounds), min_size=1, max_size=bounds.groups), st.integers(1, 60))
    def decode_run_is_step_after_step(drawn: list[Group], k: int) -> None:
        work = Pass((), tuple(drawn)).work
        one_by_one = [model.seconds(work.after_decode_steps(step)) for step in range(k)]
        np.testing.assert_allclose(model.decode_run_seconds(work, k), one_by_one, rtol=RELATIVE_TOLERANCE)
        assert len(model.decode_run_seconds(work, k)) == k

    positive_and_finite()
    never_faster_with_more_work()
    decode_run_is_step_after_step()
