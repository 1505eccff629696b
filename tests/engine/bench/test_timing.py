"""Timing on a GPU, on a machine that has none: what is asked of torch, in which order, by a stand-in for its device."""

import contextlib

import pytest
import torch

from engine.bench import timing


class Device:
    """Counts what runs; a replayed graph takes as many milliseconds as calls were captured, a call outside one two."""

    def __init__(self) -> None:
        self.now_ms, self.captures, self.is_capturing, self.mode = 0.0, 0, False, 0
        self.held: list[int] = []

    def call(self) -> None:
        if self.is_capturing:
            self.held[-1] += 1
        else:
            self.now_ms += 2

    def wait(self) -> None:
        """What a host's wait for the device does."""
        self.call()
        if self.mode:
            raise RuntimeError("called a synchronizing CUDA operation")
        assert not self.is_capturing, "a capture failed, and the process with it"


@pytest.fixture
def device(monkeypatch):
    found = Device()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at_ms = found.now_ms

        def elapsed_time(self, end):
            return end.at_ms - self.at_ms

    class Graph:
        def replay(self):
            found.now_ms += found.held[-1]

    @contextlib.contextmanager
    def graph(_):
        found.captures, found.is_capturing = found.captures + 1, True
        found.held.append(0)
        yield
        found.is_capturing = False

    def set_mode(mode):
        found.mode = {"error": 2}.get(mode, mode)

    for name, stand_in in {
        "Event": Event, "CUDAGraph": Graph, "graph": graph, "device": lambda _: contextlib.nullcontext(),
        "current_stream": lambda: None, "synchronize": lambda: None, "set_sync_debug_mode": set_mode,
        "get_sync_debug_mode": lambda: found.mode,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return found


@pytest.mark.parametrize("num_sets", [1, 3, 20])
def test_a_graph_is_timed_by_the_call(device, num_sets):
    found = timing.time_calls([device.call] * num_sets, torch.device("cuda"), budget_s=0.1)
    assert found.graph is True and device.captures == 1 and device.mode == 0
    assert device.held[0] >= timing.LEAST_CALLS and device.held[0] % num_sets == 0
    assert (found.seconds, found.spread) == (pytest.approx(1e-3), pytest.approx(0, abs=1e-9))
    assert found.rounds >= timing._ROUNDS[0]


def test_what_waits_for_the_device_is_never_captured(device):
    found = timing.time_calls([device.call, device.wait], torch.device("cuda"), budget_s=0.1)
    assert found.graph is False and device.captures == 0 and device.mode == 0
    assert found.seconds == pytest.approx(2e-3)
