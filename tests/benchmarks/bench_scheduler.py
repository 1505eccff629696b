"""What a scheduler step costs: `python -m tests.benchmarks.bench_scheduler`.

A steady decode batch of 512 must cost no more than twice a batch of 16: a decode that only decodes is not touched.
"""

import statistics
import time

from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.scheduler import Scheduler

STEPS = 2_000


def seconds_per_step(batch: int) -> float:
    """Mean seconds of schedule() + complete() over `STEPS` steps of `batch` decoding requests, contexts staggered."""
    config = EngineConfig(num_blocks=200_000, max_num_seqs=512, max_num_batched_tokens=8192, max_model_len=32_768)
    scheduler = Scheduler(config)
    for i in range(batch):
        scheduler.add(Request(str(i), 100 + i % 16, 2 * STEPS))
    while scheduler.waiting or scheduler.cohort.steps < 20:
        scheduler.complete(scheduler.schedule())
    assert len(scheduler.cohort) == batch
    start = time.perf_counter()
    for _ in range(STEPS):
        scheduler.complete(scheduler.schedule())
    return (time.perf_counter() - start) / STEPS


def main(rounds: int = 7) -> float:
    """Print medians of interleaved rounds and return the ratio 512 : 16."""
    runs = [(seconds_per_step(16), seconds_per_step(512)) for _ in range(rounds)]
    small, large = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"scheduler step: batch 16 {small * 1e6:.1f} us, batch 512 {large * 1e6:.1f} us, ratio {large / small:.2f}")
    return large / small


if __name__ == "__main__":
    main()
