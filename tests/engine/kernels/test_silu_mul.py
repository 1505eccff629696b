"""The gated activation's kernel against its reference, on shapes that no block length divides."""

import pytest
import torch

from tests.engine.kernels.silu_cases import check_silu_mul


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("tokens", "columns"), [(1, 1), (5, 33), (2, 2049), (0, 8)])
def test_against_the_reference(device, tokens, columns, dtype):
    check_silu_mul(device, tokens, columns, dtype)
