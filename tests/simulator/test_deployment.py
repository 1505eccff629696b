"""What a scenario's names stand for once it is resolved."""

import pytest

from simulator.deployment import resolve
from tests.simulator.scenarios import small


@pytest.mark.parametrize(
    ("changes", "stored"),
    [
        ({}, ("bf16", "bf16")),
        ({"model": "gpt-oss-20b"}, ("mxfp4", "bf16")),
        ({"model": "gpt-oss-20b", "weight_dtype": "bf16"}, ("bf16", "bf16")),
        ({"weight_dtype": "fp8", "kv_dtype": "fp8"}, ("fp8", "fp8")),
    ],
)
def test_formats_are_the_checkpoints_unless_the_scenario_names_others(changes, stored):
    deployment = resolve(small(**changes))
    assert (deployment.scenario.weight_dtype, deployment.scenario.kv_dtype) == stored
    assert (deployment.step_time.weight_dtype, deployment.step_time.kv_dtype) == stored


def test_a_quantised_checkpoint_leaves_more_room_than_its_weights_in_bf16():
    """gpt-oss-20b: 13.8 GB as published, 41.8 GB in bf16; the difference is cache."""
    own, wide = (resolve(small(model="gpt-oss-20b", weight_dtype=name)) for name in ("checkpoint", "bf16"))
    block_bytes = own.shape.kv_bytes_per_token("bf16") * own.engine.block_size
    gained = (own.engine.num_blocks - wide.engine.num_blocks) * block_bytes
    assert gained == pytest.approx(41.8e9 - 13.76e9, rel=0.01)
