"""How fast a fleet is simulated: `python -m tests.benchmarks.bench_simulator [AZURE_CSV]`.

One hour of production arrivals (azure2023_conv) against one replica of Llama-3.1-8B on an H100, its arrivals scaled to
70 % of the replica's own capacity, all streaming metrics on, one core. The capacity is the throughput of the same
requests all arriving at once.
"""

import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from engine.core.config import EngineConfig
from engine.core.workload import Workload
from engine.core.workload_files import read_workload
from roofline.analytic import AnalyticStepTime
from roofline.fitting import kv_blocks
from roofline.hardware import Efficiency, accelerator
from roofline.model_shape import ModelShape
from simulator.fleet.cluster import FleetSpec, simulate
from simulator.output.streaming import StreamingStats

AZURE = Path(__file__).parents[2] / "../shared/data/workloads/azure2023_conv.csv"


def replica() -> tuple[FleetSpec, AnalyticStepTime]:
    """Llama-3.1-8B on one H100 under vLLM's defaults for it, without prefix caching (the trace has no hashes)."""
    shape, hardware = ModelShape.from_catalogue("llama-3.1-8b"), accelerator("H100")
    efficiency = Efficiency.prior(hardware)
    engine = EngineConfig(
        num_blocks=kv_blocks(shape, hardware, efficiency), max_num_seqs=1024, max_num_batched_tokens=8192,
        max_model_len=32_768, enable_prefix_caching=False,
    )  # fmt: skip
    return FleetSpec(engine), AnalyticStepTime(shape, hardware, efficiency)


def run(load: Workload) -> tuple[float, StreamingStats]:
    """Wall seconds of simulating `load`, and its figures."""
    fleet, step_time = replica()
    stats = StreamingStats()
    start = time.perf_counter()
    simulate(fleet, step_time, load, stats)
    return time.perf_counter() - start, stats


def at_load(load: Workload, share: float) -> Workload:
    """`load` with its arrivals scaled to `share` of the replica's capacity."""
    _, stats = run(load.with_arrivals(np.zeros(len(load))))
    capacity = stats.summary()["request_throughput"]
    arrival_s = load.requests["arrival_s"].to_numpy()
    return load.with_arrivals(arrival_s * (len(load) / arrival_s[-1]) / (share * capacity))


def main(path: Path = AZURE, rounds: int = 5) -> float:
    """Print the median of `rounds` and return requests simulated a second."""
    load = at_load(read_workload(path), 0.7)
    first, half = run(load.head(len(load) // 4))[0], []
    for _ in range(rounds):
        seconds, stats = run(load)
        half.append(len(load) / seconds)
    figures = stats.summary()
    rate = statistics.median(half)
    print(
        f"{rate:,.0f} requests/s simulated (median of {rounds}; {min(half):,.0f} to {max(half):,.0f}), {len(load)} "
        f"requests, {figures['num_steps']:,} steps, {figures['num_preemptions']} preemptions, "
        f"TTFT p99 {figures['ttft_s']['p99']:.3f} s, TPOT p99 {figures['tpot_s']['p99'] * 1e3:.1f} ms; "
        f"first quarter alone {len(load) // 4 / first:,.0f} requests/s; "
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB"
    )
    return rate


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else AZURE)
