import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline.communication import (
    Group,
    Link,
    all_reduce_s,
    all_to_all_s,
    group_of,
    one_shot_all_reduce_s,
    ring_all_reduce_s,
    send_s,
)
from roofline.errors import InputError
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.nodes import node_of

H100 = accelerator("H100")
NVLINK, NETWORK = Link(315e9, 5e-6), Link(35e9, 20e-6)
groups = st.integers(1, 64).map(lambda n: Group(n, min(n, 8), NVLINK, NETWORK if n > 8 else None))


@given(groups, st.floats(1, 1e10), st.floats(1, 1e10))
def test_more_bytes_never_take_less_time(group, first, second):
    small, large = sorted((first, second))
    for collective in (all_reduce_s, all_to_all_s):
        assert 0 <= collective(small, group) <= collective(large, group) < float("inf")


@given(groups, st.lists(st.floats(1, 1e10), min_size=1, max_size=5))
def test_arrays_give_what_numbers_give(group, sizes):
    for collective in (all_reduce_s, all_to_all_s):
        assert list(collective(np.array(sizes), group)) == [collective(size, group) for size in sizes]


def test_one_rank_says_nothing():
    assert all_reduce_s(1e6, Group(1, 1, NVLINK)) == all_to_all_s(1e6, Group(1, 1, NVLINK)) == 0


def test_small_messages_go_in_one_shot_and_large_ones_by_ring():
    small, large = 1e4, 1e8
    assert all_reduce_s(small, Group(8, 8, NVLINK)) == one_shot_all_reduce_s(small, 8, NVLINK)
    assert all_reduce_s(large, Group(8, 8, NVLINK)) == ring_all_reduce_s(large, 8, NVLINK)
    assert ring_all_reduce_s(large, 8, NVLINK) == 2 * 5e-6 + 2 * 7 / 8 * large / 315e9
    assert one_shot_all_reduce_s(small, 8, NVLINK) == 5e-6 + 7 * small / 315e9


def test_between_nodes_only_the_part_of_one_rank_travels():
    """1 GB over two nodes of eight: each rank sends an eighth of it over the network, once each way of the ring."""
    group = Group(16, 8, NVLINK, NETWORK)
    assert group.nodes == 2
    assert all_reduce_s(1e9, group) == pytest.approx(2 * 20e-6 + 1e9 / 8 / 35e9 + 2 * 5e-6 + 1.75e9 / 315e9)


def test_all_to_all_waits_for_the_slower_path():
    inside, across = all_to_all_s(1e8, Group(8, 8, NVLINK)), all_to_all_s(1e8, Group(16, 8, NVLINK, NETWORK))
    assert inside == pytest.approx(5e-6 + 7 / 8 * 1e8 / 315e9)
    assert across == pytest.approx(20e-6 + 8 / 16 * 1e8 / 35e9)


def test_ranks_are_placed_in_the_catalogues_node():
    usual = Efficiency.prior(H100)
    inside, across = group_of(H100, usual, 8), group_of(H100, usual, 16)
    assert (inside.local, inside.network) == (8, None)
    assert inside.link == Link(450e9 * 0.7, 5e-6)
    assert across.local == 8
    assert across.network is not None
    assert across.network.bytes_per_s == node_of("H100").network_bytes_per_s * 0.7
    assert across.outermost is across.network
    assert send_s(1e6, across.outermost) > send_s(1e6, inside.outermost)


def test_an_accelerator_of_no_known_node_has_one_link_for_all():
    own = HardwareSpec("mine", "gpu", 80e9, 3e12, {"bf16": 1e15}, 200e9, None, "me", "2026-11")
    assert group_of(own, Efficiency(), 32) == Group(32, 32, Link(140e9, 5e-6))


def test_without_a_link_there_is_no_group():
    laptop = HardwareSpec.measured_cpu(20e9, {"fp32": 100e9}, 16e9)
    with pytest.raises(InputError, match="has no link"):
        group_of(laptop, Efficiency(), 2)
    with pytest.raises(InputError, match="has no meaning"):
        Link(0.0, 1e-6)
