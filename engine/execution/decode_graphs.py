"""Which batch sizes a decode is captured for, and the captured CUDA graphs.

A decode step of a small model is a few hundred kernels of a few microseconds: launched one by one they take the host
longer than the device. A graph replays them all with one call, at the price of a fixed batch size.
"""

import gc
from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch

SMALLEST, STEP = (1, 2, 4), 8  # a decode's time hardly depends on the batch below 8, so padding costs little above


def graph_batches(max_num_seqs: int) -> tuple[int, ...]:
    """1, 2, 4, 8, 16, 24 and so on, up to `max_num_seqs`, which is the last one."""
    regular = [*SMALLEST, *range(STEP, max_num_seqs, STEP)]
    return (*(size for size in regular if size < max_num_seqs), max_num_seqs)


def padded_batch(batches: Sequence[int], num_rows: int) -> int | None:
    """The smallest of the ascending `batches` that holds `num_rows`; None where none does."""
    place = bisect_left(batches, num_rows)
    return batches[place] if place < len(batches) else None


class DecodeGraphs:
    """One captured graph a batch size, all in one memory pool, since only one runs at a time."""

    def __init__(self, run: Callable[[int], None], batches: Sequence[int]) -> None:
        """Capture `run(batch)` for each of `batches`.

        `run` must read and write the same memory each time, and do nothing on the host. It runs once before the
        captures at every batch: that compiles kernels, and libraries set up what they may not set up in a capture.
        """
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        descending = sorted(batches, reverse=True)  # the largest first: the others fit the memory it leaves
        for batch in descending:
            run(batch)
        torch.cuda.synchronize()
        gc.collect()
        gc.freeze()  # each capture collects garbage, and would walk all there is
        pool = torch.cuda.graph_pool_handle()
        for batch in descending:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                run(batch)
            self._graphs[batch] = graph
        torch.cuda.synchronize()

    def replay(self, batch: int) -> None:
        """Run what was captured for `batch`."""
        self._graphs[batch].replay()
