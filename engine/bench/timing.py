"""How long a piece of device work takes: medians over many runs, by events on a GPU and by the clock on a CPU.

The work is given as several calls that do the same on different inputs, so that a GPU's cache does not answer for its
memory: `input_sets` says how many are needed. On a GPU the calls are captured in a graph, and its replays are timed
with events; what cannot be captured is timed call by call, and says so.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Call = Callable[[], object]

WARM_UPS = 3
LEAST_CALLS = 16  # in one graph: the two events around a replay cost some microseconds
MOST_SETS = 64
CACHES = 3  # the inputs of all sets are so many times the size of the last-level cache
_ROUNDS = (7, 200)  # at least and at most
_BUDGET_S = 0.2  # of one measurement, within those bounds


@dataclass(frozen=True, slots=True)
class Timing:
    """Median seconds of one call; `spread` is the distance from the 10th to the 90th percentile over the median.

    `graph` says whether a GPU replayed a graph; None on a CPU, which has none.
    """

    seconds: float
    spread: float
    rounds: int
    graph: bool | None


def input_sets(set_bytes: float, cache_bytes: int) -> int:
    """How many sets of inputs make repeated calls read memory, not the cache."""
    return max(1, min(MOST_SETS, -(-CACHES * cache_bytes // max(1, int(set_bytes)))))


def cache_bytes(device: torch.device) -> int:
    """Last-level cache of a GPU; 0 for a CPU, whose kernels run as the engine's do, with whatever is cached."""
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device.type == "cuda" else 0


def time_calls(calls: Sequence[Call], device: torch.device, budget_s: float = _BUDGET_S) -> Timing:
    """Time of one of `calls`, which take turns; the first runs do not count."""
    with torch.inference_mode():
        return _cuda(calls, device, budget_s) if device.type == "cuda" else _cpu(calls, budget_s)


def _cpu(calls: Sequence[Call], budget_s: float) -> Timing:
    def one_round() -> float:
        started = time.perf_counter()
        for call in calls:
            call()
        return time.perf_counter() - started

    one_round()
    rounds = _num_rounds(one_round(), budget_s)
    return _timing([one_round() for _ in range(rounds)], len(calls), graph=None)


def _cuda(calls: Sequence[Call], device: torch.device, budget_s: float) -> Timing:
    """The replays (or eager rounds) are queued back to back, an event before and after each."""
    with torch.cuda.device(device):
        for _ in range(WARM_UPS):
            for call in calls:
                call()
        torch.cuda.synchronize()
        turns = list(calls) * max(1, -(-LEAST_CALLS // len(calls)))
        graph = _captured(turns)
        run = graph.replay if graph is not None else lambda: [call() for call in turns]
        run()
        first_s = _event_seconds(run, 1)[0]
        times = _event_seconds(run, _num_rounds(first_s, budget_s))
        return _timing(times, len(turns), graph is not None)


def _captured(calls: Sequence[Call]) -> "torch.cuda.CUDAGraph | None":
    """A graph of the calls; None where one of them does what a graph cannot hold (it waits for the device, say).

    Calls that wait are told beforehand: a capture that fails leaves torch's allocator and its default generator in the
    middle of it, and much of what the process does on the device fails from then on.
    """
    if _waits(calls):
        return None
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            for call in calls:
                call()
    except RuntimeError:
        torch.cuda.set_stream(stream)  # a capture that fails to end leaves its own stream behind
        torch.cuda.synchronize()
        return None
    return graph


def _waits(calls: Sequence[Call]) -> bool:
    """Whether one of the calls makes the host wait for the device, as far as torch knows."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it does not find all of them
        torch.cuda.set_sync_debug_mode("error")
    try:
        for call in calls:
            call()
    except RuntimeError:
        return True
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return False


def _event_seconds(run: Call, rounds: int) -> list[float]:
    """Device seconds of each of `rounds` runs."""
    events = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(rounds)]
    for start, end in events:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1000 for start, end in events]


def _num_rounds(round_s: float, budget_s: float) -> int:
    least, most = _ROUNDS
    return int(np.clip(budget_s / max(round_s, 1e-9), least, most))


def _timing(round_s: Sequence[float], num_calls: int, graph: bool | None) -> Timing:
    low, median, high = np.percentile(np.asarray(round_s) / num_calls, (10, 50, 90))
    return Timing(float(median), float((high - low) / median), len(round_s), graph)
