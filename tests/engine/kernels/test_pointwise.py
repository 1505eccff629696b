"""Norm, activation and rotation against their formulas in float64."""

from dataclasses import replace

import pytest
import torch

from engine.kernels.rms_norm import rms_norm
from engine.kernels.rope import apply_rope, rope_table
from engine.kernels.silu_mul import silu_mul
from tests.engine.models import TINY


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("size", [(1, 7), (5, 576), (2, 3, 48)])
def test_rms_norm(dtype, tolerance, size):
    x, weight = torch.randn(size).to(dtype), torch.randn(size[-1]).to(dtype)
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    got = rms_norm(x, weight, 1e-5)
    assert got.dtype == dtype
    # bfloat16 is rounded twice, by up to 2**-9 each.
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=tolerance)


def test_rms_norm_does_not_overflow_in_half_precision():
    assert rms_norm(torch.full((1, 8), 300.0, dtype=torch.float16), torch.ones(8).half(), 1e-5).isfinite().all()


def test_silu_mul():
    gate, up = torch.randn(5, 33), torch.randn(5, 33)
    expected = gate.double() / (1 + (-gate.double()).exp()) * up.double()
    torch.testing.assert_close(silu_mul(torch.cat((gate, up), 1)).double(), expected, atol=1e-6, rtol=1e-6)


def test_rotation_is_a_complex_product():
    table = rope_table(TINY, torch.float32)
    positions = torch.tensor([0, 1, 7, 255])
    x = torch.randn(4, 3, TINY.head_dim)
    got = apply_rope(x, table.cos[positions], table.sin[positions])
    half = TINY.head_dim // 2
    frequencies = TINY.rope_theta ** (-torch.arange(half, dtype=torch.float64) * 2 / TINY.head_dim)
    turned = torch.polar(torch.ones(4, half, dtype=torch.float64), positions[:, None] * frequencies)
    expected = torch.complex(x[..., :half].double(), x[..., half:].double()) * turned[:, None]
    torch.testing.assert_close(got.double(), torch.cat((expected.real, expected.imag), -1), atol=1e-6, rtol=1e-5)


def test_scores_depend_on_distance_alone():
    table = rope_table(replace(TINY, head_dim=64), torch.float32)
    q, k = torch.randn(1, 1, 64), torch.randn(1, 1, 64)

    def score(at, other):
        return (apply_rope(q, table.cos[at], table.sin[at]) * apply_rope(k, table.cos[other], table.sin[other])).sum()

    torch.testing.assert_close(score([100], [90]), score([250], [240]), atol=1e-4, rtol=1e-4)
