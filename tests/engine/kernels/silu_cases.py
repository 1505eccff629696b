"""One set-up for the gated activation, under the interpreter and on a GPU."""

import torch

from engine.kernels.silu_mul import launch, silu_mul

# Devices take exp within 2 places of float32; shorter formats round twice, and either may fall the other way.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2**-9, torch.bfloat16: 2**-6}


def check_silu_mul(device, tokens, columns, dtype):
    """The kernel gives what the torch reference does, also far from zero, where exp overflows."""
    generator = torch.Generator().manual_seed(tokens + columns)
    gate_up = torch.randn(tokens, 2 * columns, generator=generator) * 4
    gate_up[:, 0], gate_up[:, 1:2] = -300.0, 300.0
    gate_up = gate_up.to(dtype)
    got = launch(gate_up.to(device))
    assert got.dtype == dtype and got.shape == (tokens, columns)
    torch.testing.assert_close(got.cpu(), silu_mul(gate_up), atol=1e-6, rtol=TOLERANCE[dtype])
