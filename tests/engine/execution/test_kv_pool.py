"""The arithmetic of a GPU's KV pool, and what is said where it does not work out."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.kv_pool import (
    BlockKind,
    DeviceMemory,
    check_pool,
    check_utilization,
    out_of_memory_means,
    pool_blocks,
)
from roofline.errors import CapacityError, InputError
from tests.engine.models import TINY

BLOCK = BlockKind(TINY, 16, torch.bfloat16)


def test_a_block_holds_keys_and_values_of_all_layers():
    assert BLOCK.num_bytes == 2 * TINY.num_layers * TINY.num_kv_heads * TINY.head_dim * 16 * 2
    assert BlockKind(TINY, 16, torch.float8_e4m3fn).num_bytes * 2 == BLOCK.num_bytes


@given(
    total=st.integers(10**8, 10**12),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.2), st.floats(0, 0.1)),
    utilization=st.floats(0.85, 1),
)
def test_the_pool_fills_what_may_be_used_and_no_more(total, shares, utilization):
    used, step, graphs = (int(share * total) for share in shares)
    blocks = pool_blocks(DeviceMemory(total, used, step, graphs), utilization, BLOCK)
    taken = used + step + graphs + blocks * BLOCK.num_bytes
    assert taken <= total * utilization < taken + BLOCK.num_bytes + 1


def test_a_model_that_leaves_no_room_names_the_settings():
    memory = DeviceMemory(total=80 * 10**9, used=70 * 10**9, step=3 * 10**9, graphs=10**9)
    with pytest.raises(CapacityError) as said:
        pool_blocks(memory, 0.9, BLOCK)
    for part in ("80.00 GB", "72.00 GB", "70.00 GB", "4.00 GB", "raise gpu_memory_utilization", "max_num_seqs"):
        assert part in str(said.value)
    assert pool_blocks(memory, 0.95, BLOCK) > 2


def test_a_pool_beyond_the_free_memory_is_refused():
    check_pool(10, BLOCK, 10 * BLOCK.num_bytes)
    with pytest.raises(CapacityError, match=r"11 KV blocks of 16 tokens of tiny .* lower num_blocks"):
        check_pool(11, BLOCK, 11 * BLOCK.num_bytes - 1)


@pytest.mark.parametrize("utilization", [0, -0.5, 1.01, float("nan")])
def test_a_utilization_is_a_fraction(utilization):
    with pytest.raises(InputError, match=re.escape(f"gpu_memory_utilization is {utilization}")):
        check_utilization(utilization)


def test_running_out_of_memory_becomes_a_sentence_with_its_remedy():
    says = pytest.raises(CapacityError, match="does not hold the weights; use a smaller model")
    with says as said, out_of_memory_means("the weights", "use a smaller model"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert isinstance(said.value.__cause__, torch.OutOfMemoryError)
    with pytest.raises(ValueError, match="other"), out_of_memory_means("the weights", "use a smaller model"):
        raise ValueError("other")
