"""Which batch sizes are captured, and which one a decode runs at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.decode_graphs import graph_batches, padded_batch


@pytest.mark.parametrize(
    ("most", "batches"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (8, (1, 2, 4, 8)),
        (20, (1, 2, 4, 8, 16, 20)),
        (32, (1, 2, 4, 8, 16, 24, 32)),
    ],
)
def test_batches_are_small_powers_then_eights_then_the_most(most, batches):
    assert graph_batches(most) == batches


@given(st.integers(1, 1024).flatmap(lambda most: st.tuples(st.just(most), st.integers(1, most))))
def test_every_batch_has_a_graph_that_wastes_less_than_eight_rows(sizes):
    most, rows = sizes
    batches = graph_batches(most)
    padded = padded_batch(batches, rows)
    assert rows <= padded < rows + 8 and padded in batches and padded <= most
    assert not any(rows <= batch < padded for batch in batches)


def test_a_batch_beyond_all_graphs_has_none():
    assert padded_batch((1, 2, 4), 5) is None and padded_batch((), 1) is None
