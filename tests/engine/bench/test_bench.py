"""What `engine bench` measures and writes: prompts, grids, ceilings, provenance, on a tiny model."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bench import serve, steps
from engine.bench.attainment import ServedModel, roofline_share, shares
from engine.bench.gpu import Gpu
from engine.bench.grid import SKEWS, Grid
from engine.bench.load import Load
from engine.bench.machine import Machine, measure_machine
from engine.bench.prompts import prompt_token_ids
from engine.core import trace_meta
from engine.core.config import EngineConfig
from engine.core.trace import Trace, read_trace, require_for_fit, require_for_replay, write_trace
from engine.core.workload import Workload, requests_of
from engine.core.workload_files import read_workload
from engine.serving.llm import LLM
from roofline.errors import CapacityError, InputError
from tests.engine.models import TINY

MACHINE = Machine("a test processor", 2, 1, 8 << 30, 1e10, 1.2e10, {"fp32": 1e11})
CONFIG = EngineConfig(num_blocks=60, block_size=4, max_num_seqs=8, max_num_batched_tokens=64, max_model_len=128)


def shared_prefix_workload(lengths, keys, key_block_size=8) -> Workload:
    count = len(lengths)
    requests = requests_of(np.arange(count) * 0.002, np.array(lengths), np.full(count, 3))
    return Workload(requests, tuple(np.array(k) for k in keys), key_block_size, {"key_block_size": key_block_size})


def test_prompts_are_equal_exactly_where_keys_are():
    workload = shared_prefix_workload([20, 18, 20], [[0, 1, 2], [0, 1, 3], [9, 10, 11]])
    a, b, c = (prompt_token_ids(workload, i, 1000, seed=0) for i in range(3))
    assert (a.size, b.size, c.size) == (20, 18, 20)
    assert (a[:16] == b[:16]).all() and not (a[16:18] == b[16:18]).all() and not (a[:8] == c[:8]).any()
    assert (prompt_token_ids(workload, 0, 1000, seed=0) == a).all()
    assert not (prompt_token_ids(workload, 0, 1000, seed=1) == a).all()


@given(st.integers(0, 2**63 - 1), st.integers(2, 50_000))
def test_prompts_without_keys_are_all_different_and_spread_over_the_vocabulary(seed, vocab_size):
    workload = Workload(requests_of(np.zeros(2), np.array([4000, 4000]), np.array([1, 1])))
    one, two = (prompt_token_ids(workload, i, vocab_size, seed) for i in range(2))
    assert one.min() >= 0 and one.max() < vocab_size
    assert (one == two).mean() < 4 / vocab_size**0.5
    # The mean of n uniform draws lies within six standard errors of the middle but for one seed in 10^9.
    assert abs(one.mean() - (vocab_size - 1) / 2) < 6 * vocab_size / math.sqrt(12 * one.size)


def test_serving_writes_a_trace_that_fits_replays_and_names_its_origin(tiny, tmp_path):
    llm = LLM(tiny, None, CONFIG)
    workload = shared_prefix_workload([20, 18, 20], [[0, 1, 2], [0, 1, 3], [9, 10, 11]])
    served = serve.prepare(llm, workload, seed=5, max_concurrency=2).run(MACHINE, lambda live, end: None)
    write_trace(tmp_path / "t", served.trace)
    trace = read_trace(tmp_path / "t")
    assert len(require_for_fit(trace)) == served.trace.steps.shape[0]
    assert require_for_replay(trace)["output_tokens"].tolist() == [3, 3, 3]
    assert trace.requests["cached_tokens"].tolist() == [
        0,
        16,
        0,
    ]  # the second shares four blocks of four with the first
    assert (trace.steps[["device_s", "schedule_s", "prepare_s", "sample_s"]].sum(axis=1) <= trace.steps["wall_s"]).all()
    again = read_workload(tmp_path / "t")
    assert [again.keys(i, 4) for i in range(3)] == [workload.keys(i, 4) for i in range(3)]
    assert_names_its_origin(trace)
    assert trace.meta["client"] == {"max_concurrency": 2, "to_engine_s": 0.0, "to_client_s": 0.0}


def assert_names_its_origin(trace: Trace) -> None:
    meta = trace.meta
    assert set(meta) == {
        *("schema_version", "simulated", "engine", "hardware", "software", "model", "weight_dtype", "kv_dtype"),
        *("tensor_parallel", "engine_config", "speculation", "client", "workload", "seed", "started_at"),
    }
    assert set(meta["engine"]) == {"name", "version", "commit"}
    assert {"name", "count", "memory_bytes", "driver", "clocks", "copy_bytes_per_s", "gemm_flop_per_s"} <= set(
        meta["hardware"]
    )
    assert EngineConfig(**trace_meta.engine_settings(trace)).as_dict() == meta["engine_config"]
    assert type(TINY)(**meta["model"]["shape"]) == TINY
    assert (trace_meta.model_name(trace), trace_meta.hardware_name(trace)) == ("tiny", "a test processor")
    assert (trace_meta.tensor_parallel(trace), trace_meta.hardware_count(trace)) == (1, 1)
    assert (meta["weight_dtype"], meta["kv_dtype"], meta["simulated"]) == ("fp32", "fp32", False)


def test_priorities_are_kept_where_they_decide(tiny):
    llm = LLM(tiny, None, replace(CONFIG, policy="priority", max_num_seqs=1))
    requests = requests_of(np.zeros(3), np.full(3, 8), np.full(3, 2)).assign(priority=[2, 1, 0])
    trace = serve.prepare(llm, Workload(requests), seed=0).run(MACHINE, lambda live, end: None).trace
    assert trace.requests["priority"].tolist() == [2, 1, 0]
    assert trace.requests["finish_s"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("prompt", "output", "error", "message"),
    [
        (128, 1, InputError, "leaves no room for an answer"),
        (100, 29, InputError, "beyond the context of 128"),
        (100, 20, CapacityError, "raise num_blocks to 31"),
    ],
)
def test_what_can_never_be_served_is_refused_before_the_run(tiny, prompt, output, error, message):
    llm = LLM(tiny, None, replace(CONFIG, num_blocks=20))
    with pytest.raises(error, match=message):
        serve.prepare(llm, Workload(requests_of(np.zeros(1), np.array([prompt]), np.array([output]))), seed=0)
    assert not llm.has_work


def test_a_cap_below_one_is_refused(tiny):
    workload = Workload(requests_of(np.zeros(1), np.array([4]), np.array([1])))
    with pytest.raises(InputError, match="max concurrency is 0"):
        serve.prepare(LLM(tiny, None, CONFIG), workload, seed=0, max_concurrency=0)


GRID = Grid(
    decode_batches=(1, 3), contexts=(8, 20), chunks=(4, 30), histories=(0, 16), mixed_chunks=(5,), packs=(3,),
    skewed_batches=(3,), repeats=3,
)  # fmt: skip


def grid_engine(tiny, **settings) -> LLM:
    budget = GRID.least_budget
    values = {"num_blocks": GRID.num_blocks(4, budget), "max_num_seqs": 4, "max_num_batched_tokens": budget}
    return LLM(tiny, None, replace(CONFIG, **{**values, **settings}))


def test_a_grid_measures_the_compositions_asked_for(tiny, tmp_path):
    llm, ticks = grid_engine(tiny), []
    trace = steps.prepare(llm, GRID, seed=0).run(MACHINE, lambda: ticks.append(1))
    write_trace(tmp_path / "t", trace)
    table = require_for_fit(read_trace(tmp_path / "t"))
    assert len(table) == GRID.num_points == len(ticks)
    assert not llm.has_work and (table["num_preempted"] == 0).all()
    prefills = table[(table["num_decode_seqs"] == 0) & (table["num_prefill_seqs"] == 1)]
    assert list(zip(prefills["prefill_tokens"], prefills["prefill_kv_tokens"], strict=True)) == list(
        GRID.prefill_points()
    )
    packed = table[table["num_prefill_seqs"] > 1]
    assert packed[["prefill_tokens", "num_prefill_seqs", "prefill_kv_tokens"]].values.tolist() == [[30, 3, 0]]
    assert packed["prefill_attn_pairs"].tolist() == [3 * 10 * 11 // 2]
    decodes = table[table["num_prefill_seqs"] == 0]
    level, skewed = decodes.iloc[:-2], decodes.iloc[-2:]
    assert level["num_decode_seqs"].tolist() == [3, 1, 3, 1]
    mean_context = level["decode_kv_tokens"] / level["num_decode_seqs"]
    room = GRID.decode_room(GRID.least_budget)
    assert all(low <= seen <= low + room for low, seen in zip([8, 8, 20, 20], mean_context, strict=True))
    assert skewed["num_decode_seqs"].tolist() == [3, 3] == [3] * len(SKEWS)
    for row, skew in zip(skewed.to_dict("records"), SKEWS, strict=True):
        wanted = GRID.skewed_contexts(3, skew)
        assert sum(wanted) <= row["decode_kv_tokens"] <= sum(wanted) + 3 * room
        assert row["decode_kv_max"] > row["decode_kv_tokens"] / 3  # one context is longer than the others
    mixed = table[(table["num_prefill_seqs"] > 0) & (table["num_decode_seqs"] > 0)]
    assert mixed["num_decode_seqs"].tolist() == [3, 1, 3, 1] and (mixed["prefill_tokens"] == 5).all()
    assert set(mixed["prefill_kv_tokens"]) == {0, 16}
    trace.meta["workload"].pop("interrupted")
    assert_names_its_origin(trace)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_blocks": 20}, CapacityError, "raise it, or measure smaller batches"),
        ({"max_num_seqs": 3}, InputError, "raise it to 4"),
        ({"max_num_batched_tokens": 20}, InputError, "a chunk of 30 tokens .* raise it to 30"),
        ({"max_model_len": 30}, InputError, "beyond max_model_len 30"),
        ({"block_size": 3}, InputError, "a history of 16 tokens is no multiple of block_size 3"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(tiny, settings, error, message):
    with pytest.raises(error, match=message):
        steps.prepare(grid_engine(tiny, **settings), GRID, seed=0)


def test_points_beyond_the_memory_allowed_are_left_out():
    whole = Grid(decode_batches=(1, 4), contexts=(10, 100), mixed_chunks=(), skewed_batches=())
    capped = replace(whole, max_decode_tokens=100)
    assert whole.decode_levels() == [(10, (4, 1)), (100, (4, 1))]
    assert capped.decode_levels() == [(10, (4, 1)), (100, (1,))]
    assert whole.num_points - capped.num_points == 1
    assert capped.num_blocks(16, 1024) < whole.num_blocks(16, 1024)


@given(
    batch=st.integers(1, 64),
    contexts=st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    skew=st.sampled_from(SKEWS),
)
def test_skewed_contexts_start_at_the_longest_and_stay_within_the_grid(batch, contexts, skew):
    found = Grid(contexts=tuple(contexts)).skewed_contexts(batch, skew)
    assert len(found) == batch and found[0] == max(contexts)
    assert found == sorted(found, reverse=True) and min(found) >= min(contexts)


def test_a_grid_needs_sensible_numbers():
    wrongs = ({"chunks": ()}, {"contexts": (0,)}, {"histories": (-16,)}, {"repeats": 0}, {"packs": (0,)})
    for wrong in (*wrongs, {"max_decode_tokens": 31}):
        with pytest.raises(InputError):
            Grid(**wrong)


def test_the_roofline_share_is_one_at_the_bound_and_half_at_twice_its_time(tiny):
    llm, served, ceilings = grid_engine(tiny), ServedModel(TINY, "fp32", "fp32"), MACHINE.hardware()
    table = steps.prepare(llm, GRID, seed=0).run(MACHINE, lambda: None).steps
    share = roofline_share(table, served, ceilings)
    at_bound = table.assign(wall_s=share.fraction * share.busy_s / len(table))
    assert roofline_share(at_bound, served, ceilings).fraction == pytest.approx(1.0)
    twice = roofline_share(at_bound.assign(wall_s=2 * at_bound["wall_s"]), served, ceilings)
    assert twice.fraction == pytest.approx(0.5)
    assert max(twice.mbu, twice.mfu) <= 0.5 + 1e-9  # no ceiling is used more than the bound that they make
    assert shares(table.iloc[:0], served, MACHINE) is None


def test_a_gpu_is_held_against_its_datasheet_too(tiny):
    gpu = Gpu("NVIDIA H200", 150_000_000_000, 132, 60 << 20, "9.0", "580.1", {"sm_mhz": 1980.0})
    machine = replace(MACHINE, name=gpu.name, copy_bytes_per_s=4.3e12, gemm_flop_per_s={"bf16": 7.8e14}, gpu=gpu)
    table = steps.prepare(grid_engine(tiny), GRID, seed=0).run(machine, lambda: None).steps
    found = shares(table, ServedModel(TINY, "bf16", "bf16"), machine)
    assert machine.name == "H200" and machine.as_dict()["driver"] == "580.1"
    assert found.measured.mbu / found.datasheet.mbu == pytest.approx(4.8e12 / 4.3e12)  # the catalogue's H200
    assert found.measured.mfu / found.datasheet.mfu == pytest.approx(989e12 / 7.8e14)
    unknown = replace(gpu, device_name="NVIDIA Something 9")
    assert unknown.name == "NVIDIA Something 9" and replace(machine, gpu=unknown).datasheet() is None


def test_this_machine_can_be_measured(monkeypatch):
    monkeypatch.setattr("engine.bench.machine.COPY_BYTES", 8 << 20)
    monkeypatch.setattr("engine.bench.machine.GEMM_SIZE", 128)
    machine = measure_machine(["fp32"])
    # Between a computer of the nineties and one that does not exist.
    assert 1e8 < machine.copy_bytes_per_s < 1e13 and 1e8 < machine.gemm_flop_per_s["fp32"] < 1e16
    assert machine.hardware().memory_bytes_per_s == max(machine.copy_bytes_per_s, machine.read_bytes_per_s)
    assert machine.as_dict()["threads"] >= 1 and machine.name


def test_a_recorded_stream_keeps_its_arrivals_unless_a_rate_is_given(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,5,2\n1,6,3\n9,7,4\n")
    assert Load(trace=path).workload(0).requests["arrival_s"].tolist() == [0, 1, 9]
    assert len(Load(trace=path, duration_s=5).workload(0)) == 2
    assert len(Load(trace=path, num_requests=1).workload(0)) == 1
    at_rate = Load(trace=path, request_rate=2, burstiness=math.inf).workload(0)
    assert at_rate.requests["arrival_s"].tolist() == [0.5, 1.0, 1.5]
    assert at_rate.requests["prompt_tokens"].tolist() == [5, 6, 7]
    assert (at_rate.description["request_rate"], at_rate.description["burstiness"]) == (2, "inf")
    with pytest.raises(InputError, match="brings its own lengths"):
        Load(trace=path, input_len="5").workload(0)


def test_a_synthetic_load_has_defaults_and_bounds():
    assert 80 < len(Load().workload(0)) < 170  # 120 s at one request a second
    assert len(Load(num_requests=7, request_rate=math.inf).workload(0)) == 7
    with pytest.raises(InputError, match="number of requests is 0"):
        Load(num_requests=0).workload(0)
    with pytest.raises(InputError, match="length is 0 tokens"):
        Load(output_len="0").workload(0)
