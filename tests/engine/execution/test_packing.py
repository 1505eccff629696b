"""What is packed is read back, wherever the block lies."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.execution.packing import ALIGNMENT, pack

KINDS = st.sampled_from([np.int32, np.float32, np.int64])
ARRAYS = KINDS.flatmap(
    lambda kind: arrays.arrays(
        kind,
        arrays.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=7),
        elements={"allow_nan": False} if kind is np.float32 else None,
    )
)


@given(st.lists(ARRAYS, max_size=6))
def test_what_is_packed_is_read_back(values):
    named = {f"{index}": array for index, array in enumerate(values)}
    packed = pack(named)
    block = torch.full((packed.size + 3,), -7, dtype=torch.int32)
    packed.write(block.numpy())
    for name, tensor in packed.read(block.clone()).items():
        np.testing.assert_array_equal(tensor.numpy(), named[name])
        assert packed.places[name].start % ALIGNMENT == 0
    assert (block[packed.size :] == -7).all()


def test_strided_columns_are_packed_by_value():
    columns = np.arange(12, dtype=np.int32).reshape(6, 2)
    packed = pack({"second": columns[:, 1]})
    block = torch.zeros(packed.size, dtype=torch.int32)
    packed.write(block.numpy())
    assert packed.read(block)["second"].tolist() == [1, 3, 5, 7, 9, 11]
