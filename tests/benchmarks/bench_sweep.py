"""How much faster two processes sweep than one: `python -m tests.benchmarks.bench_sweep`.

A grid of sixteen runs of some seconds each, as a sweep usually has; the time of starting the processes counts.
"""

import statistics
import tempfile
import time
from pathlib import Path

from simulator.grid import Axis, grid
from simulator.parallel import Workers
from simulator.scenario import Scenario
from simulator.scenario_file import load
from simulator.sweep import sweep

CHAT = Path(__file__).parents[2] / "examples" / "chat-h100.yaml"
SEEDS = Axis("seed", tuple(range(16)))


def seconds(scenario: Scenario, workers: int) -> float:
    """Wall time of the whole grid into an empty folder."""
    points = grid(scenario, [SEEDS, Axis("fleet.replicas", (2,))])
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sweep(points, "run", Path(folder), Workers(workers))
        return time.perf_counter() - start


def main(rounds: int = 3) -> float:
    """Print the medians of `rounds`, one and two processes in turn, and return their ratio."""
    scenario = load(CHAT)
    one, two = zip(*((seconds(scenario, 1), seconds(scenario, 2)) for _ in range(rounds)), strict=True)
    ratio = statistics.median(one) / statistics.median(two)
    told = [f"{statistics.median(t):.1f} s ({min(t):.1f} to {max(t):.1f})" for t in (one, two)]
    print(f"{len(SEEDS.values)} points: {told[0]} with one process, {told[1]} with two: {ratio:.2f} times as fast")
    return ratio


if __name__ == "__main__":
    main()
