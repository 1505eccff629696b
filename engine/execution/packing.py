"""A step's arrays as one block of int32, so that they travel to the device in one copy, and as tensors again there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 4  # int32 values: every array starts at a multiple of the 16 bytes that kernels load at once
_TORCH_TYPES = {"int32": torch.int32, "float32": torch.float32, "int64": torch.int64}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array lies in the block."""

    start: int  # int32 values
    length: int  # int32 values
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Packed:
    """Named arrays of int32, float32 or int64 in one block; `size` of its int32 values are in use."""

    arrays: Mapping[str, NDArray[Any]]
    places: Mapping[str, Place]
    size: int

    def write(self, block: NDArray[np.int32]) -> None:
        """Put the arrays into a block of at least `size` values."""
        for name, place in self.places.items():
            flat = np.ascontiguousarray(self.arrays[name]).reshape(-1).view(np.int32)
            block[place.start : place.start + place.length] = flat

    def read(self, block: Tensor) -> dict[str, Tensor]:
        """The arrays as views of a copy of the block, wherever it is."""
        return {
            name: block[place.start : place.start + place.length].view(place.dtype).view(place.shape)
            for name, place in self.places.items()
        }


def pack(arrays: Mapping[str, NDArray[Any]]) -> Packed:
    """Give every array its place."""
    places, start = {}, 0
    for name, array in arrays.items():
        length = array.size * array.dtype.itemsize // 4
        places[name] = Place(start, length, array.shape, _TORCH_TYPES[array.dtype.name])
        start += -(-length // ALIGNMENT) * ALIGNMENT
    return Packed(arrays, places, start)
