"""From logits and requests' settings to token ids."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.execution.decode_rows import Integers
from engine.kernels import sampling
from engine.kernels.sampling import Filters


def sample(logits: Tensor, settings: NDArray[np.void], positions: Integers) -> Integers:
    """One token id a row.

    logits: [rows, vocabulary] float32; settings: [rows] of SETTINGS; positions: [rows], where the new token stands.
    """

    def column(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(logits.device)

    filters = Filters(*(column(settings[name]) for name in Filters._fields))
    tokens = sampling.sample(logits, filters, column(settings["seed"].view(np.int64)), column(positions))
    return tokens.cpu().numpy()
