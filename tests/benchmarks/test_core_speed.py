"""The scheduler's and the simulator's speed under `make bench`; each prints what it measured."""

import pytest

from tests.benchmarks import bench_scheduler, bench_simulator, bench_sweep

pytestmark = pytest.mark.benchmark


def test_a_steady_batch_of_512_costs_at_most_twice_one_of_16():
    assert bench_scheduler.main() <= 2


@pytest.mark.skipif(not bench_simulator.AZURE.exists(), reason="the Azure trace is not beside the project")
def test_ten_thousand_requests_a_second_are_simulated():
    assert bench_simulator.main() >= 10_000


def test_two_processes_sweep_in_little_more_than_half_the_time():
    assert bench_sweep.main() >= 1.7
