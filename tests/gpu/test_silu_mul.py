"""The gated activation at the sizes of real models."""

import pytest
import torch

from tests.engine.kernels.silu_cases import check_silu_mul


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("tokens", "columns"), [(1, 1536), (64, 14336), (2048, 3072), (3, 4864)])
def test_against_the_reference(device, tokens, columns, dtype):
    check_silu_mul(device, tokens, columns, dtype)
