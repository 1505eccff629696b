"""A KV pool that cannot be is refused with a sentence before it takes the machine's memory."""

import pytest
import torch

from engine.execution import kv_cache
from engine.execution.kv_cache import block_bytes, blocks_within, check_memory, machine_bytes
from roofline.errors import CapacityError, InputError
from tests.engine.models import TINY


def test_a_pool_up_to_the_machines_memory_is_allowed(monkeypatch):
    size = block_bytes(TINY, 16, torch.float32)
    monkeypatch.setattr(kv_cache, "machine_bytes", lambda: 10 * size)
    check_memory(10, TINY, 16, torch.float32)
    with pytest.raises(CapacityError, match=r"11 KV blocks of 16 tokens .* lower num_blocks"):
        check_memory(11, TINY, 16, torch.float32)
    assert machine_bytes() > 1 << 28


def test_a_budget_gives_the_blocks_that_fill_it():
    size = block_bytes(TINY, 16, torch.float32)
    assert blocks_within(5 * size - 1, TINY, 16, torch.float32) == 4
    with pytest.raises(CapacityError, match="at least 2 are needed"):
        blocks_within(2 * size - 1, TINY, 16, torch.float32)
    with pytest.raises(InputError, match="block_size is 0"):
        blocks_within(size, TINY, 0, torch.float32)
