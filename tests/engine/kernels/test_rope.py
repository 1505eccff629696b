"""Rotation and cache write in one kernel against the reference, on shapes that no block length divides."""

import pytest
import torch

from tests.engine.kernels.rope_cases import RopeCase, check_rope

BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn


@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=str)
@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("heads", [(3, 1, 6), (2, 2, 16), (7, 1, 96)], ids=str)
def test_against_the_reference(device, heads, dtype, has_norm):
    check_rope(device, RopeCase(5, *heads, dtype, has_norm=has_norm))


def test_more_heads_than_one_program_takes(device):
    check_rope(device, RopeCase(3, 24, 8, 128, BF16, has_norm=True))


@pytest.mark.parametrize("dtype", [torch.float32, BF16], ids=str)
@pytest.mark.parametrize("has_norm", [False, True])
def test_a_cache_of_fp8(device, dtype, has_norm):
    check_rope(device, RopeCase(6, 3, 1, 64, dtype, FP8, has_norm))


def test_places_of_either_width(device):
    check_rope(device, RopeCase(4, 2, 1, 8, index_dtype=torch.int64))


def test_no_tokens(device):
    check_rope(device, RopeCase(0, 2, 1, 8))
