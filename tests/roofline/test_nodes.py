import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline.catalogue_data import shipped_rows
from roofline.errors import InputError
from roofline.hardware import accelerator
from roofline.nodes import node_of

NAMES = [row["name"] for row in shipped_rows("nodes")]
ROW = {
    "name": "mine",
    "accelerator": "H100",
    "accelerators": 4,
    "link_domain": 2,
    "host_bytes_per_s": 32e9,
    "network_bytes_per_s": 0,
    "power_w": None,
    "source": "a test",
    "date": "2026-11",
}


def test_every_accelerator_has_a_node():
    assert {row["accelerator"] for row in shipped_rows("nodes")} == {
        row["name"] for row in shipped_rows("accelerators")
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_wider_group_never_has_a_faster_path(name):
    node = node_of(name)
    hardware = accelerator(node.accelerator)
    rates = [node.bytes_per_s(group, hardware) for group in range(1, 2 * node.accelerators)]
    assert rates == sorted(rates, reverse=True)
    assert node.note or not node.estimate
    if node.power_w is not None and hardware.tdp_w is not None:
        assert node.power_w >= node.accelerators * hardware.tdp_w  # a node draws more than its accelerators


def test_paths_of_known_nodes():
    hgx, rack, cloud = node_of("H100"), node_of("GB200-NVL72"), node_of("g6e.48xlarge")
    assert [hgx.path(group) for group in (1, 8, 9)] == ["link", "link", "network"]
    assert rack.path(72) == "link"
    assert [cloud.path(group) for group in (1, 2, 8, 16)] == ["link", "host", "host", "network"]
    assert hgx.bytes_per_s(8, accelerator("H100")) == 450e9
    assert hgx.bytes_per_s(16, accelerator("H100")) == 50e9  # 400 Gb/s


@given(st.sampled_from(NAMES), st.integers(1, 10_000))
def test_nodes_hold_what_is_placed_in_them(name, accelerators):
    node = node_of(name)
    assert (node.nodes_for(accelerators) - 1) * node.accelerators < accelerators
    assert accelerators <= node.nodes_for(accelerators) * node.accelerators


def test_user_files_come_first(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"nodes": [ROW]}))
    mine = node_of("h100", file)
    assert mine.name == "mine"
    assert mine.path(4) == "host"
    with pytest.raises(InputError, match="5 accelerators of node 'mine' need its network, and it has none"):
        mine.bytes_per_s(5, accelerator("H100"))
    assert node_of("DGX-H100", file).accelerators == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accelerators": 0}, "accelerators = 0"),
        ({"accelerators": 2.5}, "accelerators = 2.5"),
        ({"link_domain": 8}, "domain of 8 and 4 accelerators"),
        ({"network_bytes_per_s": -1}, "network_bytes_per_s = -1"),
        ({"power_w": "much"}, "power_w = 'much'"),
        ({"colour": "green"}, "has unknown fields colour"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, change, message):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"nodes": [{**ROW, **change}]}))
    with pytest.raises(InputError, match=message):
        node_of("mine", file)


def test_an_unknown_node_names_those_there_are():
    with pytest.raises(InputError, match="known are DGX-A100"):
        node_of("Z9")
