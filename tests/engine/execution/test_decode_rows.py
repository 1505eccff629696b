"""The standing rows against the obvious: a dictionary of sequences, laid out anew every step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.core.batch import Batch
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.sampling_params import SamplingParams
from engine.execution.decode_rows import DecodeRows, length_groups
from engine.execution.sequence import Sequence, block_key
from roofline.step_time import BatchWork

CONFIG = EngineConfig(num_blocks=50, block_size=4, max_num_seqs=6, max_model_len=64)


def batch(**changes):
    return Batch(step=0, work=BatchWork(), **changes)


@given(data=st.data())
def test_rows_follow_any_changes(data):
    rows, sequences, standing, blocks = DecodeRows(CONFIG), {}, {}, iter(range(1, 10_000))
    for step in range(data.draw(st.integers(1, 25))):
        left = data.draw(st.lists(st.sampled_from(list(standing)), unique=True)) if standing else []
        for request in left:
            del standing[request]
        joined = []
        for _ in range(data.draw(st.integers(0, CONFIG.max_num_seqs - len(standing)))):
            length = data.draw(st.integers(1, 30))
            request = Request(f"{step}", length, 64)
            request.block_ids = [next(blocks) for _ in range(-(-length // 4))]
            params = SamplingParams(seed=len(sequences), top_k=length)
            sequences[request] = Sequence(request, params, list(range(length)), frozenset())
            standing[request] = None
            joined.append(request)
        grown = [r for r in standing if len(r.block_ids) * 4 < len(sequences[r].token_ids)]
        for request in grown:
            request.block_ids.append(next(blocks))
        rows.apply(batch(left=tuple(left), joined=tuple(joined), grown=tuple(grown)), sequences)

        assert set(rows.requests) == set(standing) and len(rows) == len(standing)
        for row, request in enumerate(rows.requests):
            tokens, owned = sequences[request].token_ids, request.block_ids
            assert rows.token_ids[row] == tokens[-1] and rows.positions[row] == len(tokens) - 1
            assert rows.tables[row, : len(owned)].tolist() == owned and not rows.tables[row, len(owned) :].any()
            assert rows.settings[row] == sequences[request].settings
            assert rows.slots()[row] == owned[(len(tokens) - 1) // 4] * 4 + (len(tokens) - 1) % 4

        sampled = np.arange(len(rows)) + 100 * step
        rows.advance(sampled)
        for request, token in zip(rows.requests, sampled.tolist(), strict=True):
            sequences[request].token_ids.append(token)


@given(contexts=st.lists(st.integers(1, 3000), min_size=1, max_size=40), limit=st.integers(0, 5000))
def test_groups_hold_every_row_once_within_the_waste(contexts, limit):
    contexts = np.array(contexts)
    groups = length_groups(contexts, limit) or [np.arange(len(contexts))]
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(contexts)))
    for group in groups:
        assert len(group) * contexts[group].max() - contexts[group].sum() <= limit


def test_alike_contexts_are_one_group():
    assert length_groups(np.array([100, 101, 99]), 10) is None


@given(
    first=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    second=st.lists(st.integers(0, 9), min_size=4, max_size=4),
)
def test_block_keys_name_content_and_what_comes_before(first, second):
    def keys(tokens):
        request = Request("r", len(tokens), 1)
        Sequence(request, SamplingParams(seed=0), tokens, frozenset()).extend_keys(4)
        return request.block_keys

    assert keys([*first, *second, 7]) == [*keys(first), block_key(keys(first)[0], second)]
    if first != second:
        assert not set(keys([*first, *second])) & set(keys([*second, *second]))


def test_block_keys_are_the_same_in_every_process():
    assert block_key(b"", [1, 2, 3, 49151]).hex() == "b3998881a70880957ee6151624337145"
