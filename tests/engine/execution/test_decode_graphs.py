"""Which batch sizes are captured, and which one a decode runs at."""

import contextlib
import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.decode_graphs import DecodeGraphs, graph_batches, padded_batch


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


def test_everything_runs_before_the_first_capture_and_a_replay_is_of_its_own_batch(monkeypatch):
    """By a stand-in for torch's graphs that keeps what ran inside a capture and runs it again."""
    log: list[tuple[str, int]] = []
    held: list[list[int]] = []
    is_capturing = False

    class Graph:
        def __init__(self):
            self.batches: list[int] = []

        def replay(self):
            log.extend(("replay", batch) for batch in self.batches)

    @contextlib.contextmanager
    def capture(graph, pool):
        nonlocal is_capturing
        assert pool == "the pool"
        held.append(graph.batches)
        is_capturing = True
        yield
        is_capturing = False

    def run(batch):
        log.append(("capture" if is_capturing else "run", batch))
        if is_capturing:
            held[-1].append(batch)

    stand_ins = {"CUDAGraph": Graph, "graph": capture, "graph_pool_handle": lambda: "the pool"}
    for name, stand_in in {**stand_ins, "synchronize": lambda: None}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    try:
        graphs = DecodeGraphs(run, (1, 2, 8))
    finally:
        gc.unfreeze()
    assert log == [(how, batch) for how in ("run", "capture") for batch in (8, 2, 1)]
    log.clear()
    for batch in (2, 8, 2, 1):
        graphs.replay(batch)
    assert log == [("replay", batch) for batch in (2, 8, 2, 1)]
