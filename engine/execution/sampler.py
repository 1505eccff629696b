"""From logits to token ids: greedy rows, drawn rows, and ends that must not come yet."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.execution.decode_rows import Integers
from engine.kernels.sampling import Filters, draw, greedy

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def uniforms(seeds: NDArray[np.uint64], positions: Integers) -> NDArray[np.float64]:
    """A number in [0, 1) for each request's seed and each position in its sequence.

    A function of these two alone (SplitMix64's mixing, twice), so that neither neighbours nor a preemption move it.
    """
    bits = _mixed(_mixed(seeds + _GAMMA) ^ (positions.astype(np.uint64) * _GAMMA))
    return (bits >> np.uint64(11)) * 2.0**-53


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit reaches every output bit; arithmetic is modulo 2**64."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX[0]
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX[1]
    return bits ^ (bits >> np.uint64(31))


def sample(logits: Tensor, settings: NDArray[np.void], positions: Integers) -> Integers:
    """One token id a row.

    logits: [rows, vocabulary] float32; settings: [rows] of SETTINGS; positions: [rows], where the new token stands.
    """
    tokens = greedy(logits)
    drawn = np.flatnonzero(settings["temperature"])
    if drawn.size:
        chosen = settings[drawn]
        columns = (torch.from_numpy(chosen[name].copy()) for name in Filters._fields)
        filters = Filters(*(column.to(logits.device) for column in columns))
        uniform = torch.from_numpy(uniforms(chosen["seed"], positions[drawn])).to(logits.device)
        rows = torch.from_numpy(drawn).to(logits.device)
        picked = logits if drawn.size == len(logits) else logits.index_select(0, rows)
        tokens[rows] = draw(picked, filters, uniform)
    return tokens.cpu().numpy()
