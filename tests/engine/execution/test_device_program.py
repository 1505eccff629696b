"""Laws of the device's program: idle rows do no harm, and each chunk's token has its place."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.core.config import EngineConfig
from engine.execution.device_program import token_places
from engine.execution.device_setup import device_program, idle_step, largest_step
from engine.kernels.paged_prefill import Chunks

CONFIG = EngineConfig(num_blocks=9, block_size=4, max_num_seqs=6, max_num_batched_tokens=40, max_model_len=32)


def one_row(program):
    """Row 2 decodes at position 5 in the blocks 3 and 7; the cache holds numbers all over."""
    state = program.state
    state.positions[2], state.token_ids[2] = 5, 11
    state.tables[2, :2] = torch.tensor([3, 7])
    generator = torch.Generator().manual_seed(0)
    for cache in (*program.cache.keys, *program.cache.values):
        cache.normal_(generator=generator)


def test_idle_rows_write_nothing_and_change_no_token(tiny):
    tokens = []
    for padded in (3, 6):
        program = device_program(tiny, CONFIG, torch.float32, CONFIG.num_blocks)
        one_row(program)
        before = [cache.clone() for cache in (*program.cache.keys, *program.cache.values)]
        program.decode(padded)
        tokens.append(int(program.state.token_ids[2]))
        assert program.state.positions.tolist() == [-1, -1, 6, -1, -1, -1, -1, -1]
        for was, cache in zip(before, (*program.cache.keys, *program.cache.values), strict=True):
            changed = (was != cache).any(dim=(2, 3)).nonzero().tolist()
            assert changed == [[7, 1]]  # position 5 is the second place of the second block
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("rows", [0, 1, 6])
def test_a_step_of_idle_rows_writes_to_the_null_block_alone(tiny, rows):
    program = device_program(tiny, CONFIG, torch.float32, CONFIG.num_blocks)
    idle_step(program, [4, 4, 2], rows)
    for cache in (*program.cache.keys, *program.cache.values):
        assert cache[0].any() and not cache[1:].any()
    assert (program.state.positions == -1).all()


@pytest.mark.parametrize(("budget", "context"), [(40, 32), (40, 2), (6, 32), (200, 8)])
def test_the_largest_step_runs_whatever_the_limits(tiny, budget, context):
    config = EngineConfig(2, block_size=4, max_num_seqs=6, max_num_batched_tokens=budget, max_model_len=context)
    largest_step(device_program(tiny, config, torch.float32, num_blocks=1), config)


@given(
    chunks=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=5),
    block_size=st.integers(1, 7),
)
def test_places_are_those_of_counting(chunks, block_size):
    lengths, contexts = zip(*chunks, strict=True)
    tables = torch.randperm(len(chunks) * 30, dtype=torch.int32).view(len(chunks), 30)
    starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    packed = Chunks(tables, starts, torch.tensor(contexts, dtype=torch.int32), max(lengths))
    positions, slots = token_places(packed, sum(lengths), block_size)
    expected = [(row, context + place) for row, (length, context) in enumerate(chunks) for place in range(length)]
    assert positions.tolist() == [position for _, position in expected]
    assert slots.tolist() == [
        int(tables[row, position // block_size]) * block_size + position % block_size for row, position in expected
    ]
