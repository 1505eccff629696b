"""The norm's kernel against its reference, on shapes that no block length divides."""

import pytest
import torch

from tests.engine.kernels.norm_cases import check_rms_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("size", [(1, 7), (5, 576), (3, 2, 48), (0, 64)])
def test_against_the_reference(device, size, dtype, adds):
    check_rms_norm(device, size, dtype, adds)
