"""Rotation and cache write at the sizes of real models."""

import pytest
import torch

from tests.engine.kernels.rope_cases import RopeCase, check_rope

BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, BF16], ids=str)
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("heads", [(9, 3, 64), (32, 32, 96), (32, 8, 128), (8, 1, 256)], ids=str)
@pytest.mark.parametrize("tokens", [1, 64, 1031])
def test_against_the_reference(device, tokens, heads, dtype, has_norm):
    check_rope(device, RopeCase(tokens, *heads, dtype, has_norm=has_norm))


@pytest.mark.parametrize("has_norm", [False, True])
def test_a_cache_of_fp8(device, has_norm):
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU does not convert to e4m3")
    check_rope(device, RopeCase(65, 32, 8, 128, BF16, FP8, has_norm))
