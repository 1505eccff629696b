"""The benchmarks on a GPU: ceilings, event timing, the kernel table, and an engine of random weights measured."""

from dataclasses import replace

import pytest
import torch

from engine.bench import steps, timing
from engine.bench.engine_choice import EngineChoice
from engine.bench.grid import Grid
from engine.bench.kernel_cases import cases
from engine.bench.kernel_sizes import H200
from engine.bench.kernels import OURS, measure_kernels
from engine.bench.machine import measure_machine

# A few of the sizes, so that compiling and timing stay short; the campaign measures all.
FEW = replace(H200, decodes=((32, 1024), (1, 1024)), prefills=((2048, 0), (512, 1024)), rows=(1, 64))


@pytest.fixture(scope="module")
def machine(device):
    return measure_machine(["bf16"], device)


def test_ceilings_are_below_the_datasheet_and_not_far(machine):
    peaks = machine.datasheet()
    if peaks is None:
        pytest.skip(f"{machine.name} is not in the catalogue")
    # A copy of a GPU reaches 80 to 95 % of its peak, a large product 60 to 95 %; caches must not lift either above 1.
    assert 0.6 < machine.memory_bytes_per_s / peaks.memory_bytes_per_s < 1
    assert 0.4 < machine.gemm_flop_per_s["bf16"] / peaks.flops_per_s("bf16") < 1
    assert machine.gpu.cache_bytes > 0 and machine.memory_bytes > 0.9 * peaks.memory_bytes


def test_a_graph_is_timed_and_what_cannot_be_captured_is_timed_without(device):
    x = torch.randn(1 << 22, device=device)
    inside = timing.time_calls([lambda: x.add_(1e-9)], torch.device(device))
    outside = timing.time_calls([lambda: float(x.sum())], torch.device(device))  # waits for the device
    assert inside.graph is True and outside.graph is False
    assert 0 < inside.seconds < outside.seconds < 0.1


def test_the_kernel_table_is_right_below_the_roof_and_in_graphs(device, machine):
    rows = measure_kernels(cases(FEW), torch.device(device), machine, 0, lambda found: None)
    ours = [row for row in rows if row.implementation == OURS]
    assert [row.failure for row in ours] == [None] * len(cases(FEW))
    assert all(row.graph for row in ours)
    assert all(row.fraction < 1.1 for row in ours), "faster than memory: the inputs stayed in the cache"


def test_steps_of_random_weights_are_graphs_with_device_times(device, machine):
    grid = Grid(
        decode_batches=(1, 8), contexts=(64, 256), chunks=(64, 512), histories=(0, 256), mixed_chunks=(64,), packs=(4,),
        skewed_batches=(8,), repeats=3,
    )  # fmt: skip
    settings = {
        "num_blocks": grid.num_blocks(16, 1024), "max_num_seqs": grid.most_sequences, "max_num_batched_tokens": 1024,
        "max_model_len": 2048, "async_scheduling": False,
    }  # fmt: skip
    llm = EngineChoice("qwen3-0.6b", device="cuda", dtype="bf16", load_format="dummy").load(settings)
    trace = steps.prepare(llm, grid, seed=0).run(machine, lambda: None)
    table = trace.steps
    assert len(table) == grid.num_points and trace.meta["hardware"]["kind"] == "gpu"
    assert (table["device_s"] > 0).all() and (table["device_s"] <= table["wall_s"]).all()
    decodes = table[table["num_prefill_seqs"] == 0]
    assert (decodes["mode"] == "graph").all() and (decodes["graph_batch"] >= decodes["num_decode_seqs"]).all()
