"""One set-up for the norm's kernel, under the interpreter and on a GPU."""

import torch

from engine.kernels.rms_norm import add_rms_norm, launch, rms_norm

EPS = 1e-5
# A float32 sum in another order moves the scale by 1e-7 or so, and so some value of a shorter format by one place.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def check_rms_norm(device, size, dtype, adds):
    """The kernel gives what the torch reference does, and the residual's sum exactly."""
    generator = torch.Generator().manual_seed(sum(size))
    x, residual = (torch.randn(size, generator=generator).to(dtype) for _ in range(2))
    weight = torch.randn(size[-1], generator=generator).to(dtype)
    summed = residual.clone().to(device)
    got = launch(x.to(device), summed if adds else None, weight.to(device), EPS)
    expected = add_rms_norm(x, residual, weight, EPS) if adds else rms_norm(x, weight, EPS)
    assert got.dtype == dtype
    torch.testing.assert_close(got.cpu(), expected, atol=1e-6, rtol=TOLERANCE[dtype])
    assert torch.equal(summed.cpu(), residual)
