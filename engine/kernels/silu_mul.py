"""The gated activation of a SwiGLU block, torch reference."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def silu_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up`, where gate_up: [tokens, 2 * n] holds gate in its first half; returns [tokens, n]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)
