"""Root-mean-square normalisation, torch reference."""

from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension.

    x: [..., n]; weight: [n]; returns x's shape and dtype. The mean and the scaling are float32, and the product with
    the weight is in x's dtype, as Llama's reference implementation rounds it.
    """
    wide = x.float()
    scale = wide.square().sum(-1, keepdim=True).mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (wide * scale).to(x.dtype) * weight
