"""The norm's kernel against its reference at the sizes of real models."""

import pytest
import torch

from tests.engine.kernels.norm_cases import check_rms_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("size", [(1, 576), (17, 896), (64, 4096), (2051, 8192)])
def test_against_the_reference(device, size, dtype, adds):
    check_rms_norm(device, size, dtype, adds)
