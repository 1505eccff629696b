"""Throughput and latency without arrivals: the workload, the arithmetic, the traces."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from engine.bench import serve
from engine.bench.figures import capacity_per_s, exposed_host_s, step_figures
from engine.bench.machine import Machine
from engine.bench.offline import LatencyPlan, Throughput, latencies, measure_latency, mixed_256
from engine.core.config import EngineConfig
from engine.core.trace import read_trace, require_for_replay, write_trace
from engine.serving.llm import LLM
from roofline.errors import CapacityError, InputError
from tests.engine.bench.tiny_preset import SETTINGS, tiny_preset

MACHINE = Machine("a test processor", 2, 1, 8 << 30, 1e10, 1.2e10, {"fp32": 1e11})
CONFIG = EngineConfig(**SETTINGS)


def test_the_mixed_workload_is_the_one_whose_figures_others_publish():
    requests = mixed_256().requests
    assert (len(requests), requests["prompt_tokens"].sum(), requests["output_tokens"].sum()) == (256, 142_827, 133_966)
    lengths = requests[["prompt_tokens", "output_tokens"]]
    assert lengths.min().min() >= 100 and lengths.max().max() <= 1024 and (requests["arrival_s"] == 0).all()


def test_a_smaller_one_is_of_the_same_kind():
    requests = mixed_256(5, 20).requests
    assert len(requests) == 5 and set(requests["prompt_tokens"]) == {20}


@pytest.mark.parametrize(("sizes", "said"), [((0, 20), "num_requests is 0"), ((5, -1), "longest is -1")])
def test_no_requests_or_empty_ones_are_refused(sizes, said):
    with pytest.raises(InputError, match=f"{said}; it must be at least 1"):
        mixed_256(*sizes)


def test_throughput_counts_completed_requests_over_the_whole_time():
    table = pd.DataFrame(
        {
            "arrival_s": [0.0, 0.0, 1.0], "prompt_tokens": [10, 20, 40], "output_tokens": [4, 6, 1],
            "first_token_s": [1.0, 1.0, 2.0], "finish_s": [2.0, 4.0, 3.0], "finish_reason": ["length", "stop", "abort"],
        }
    )  # fmt: skip
    found = Throughput.of(table).as_dict()
    assert (found["input_tokens"], found["output_tokens"], found["seconds"]) == (30, 10, 4.0)
    assert (found["input_tokens_per_s"], found["output_tokens_per_s"], found["total_tokens_per_s"]) == (7.5, 2.5, 10.0)


def test_latency_batches_follow_one_another_and_miss_the_prefix_cache(tiny, tmp_path):
    plan, done = LatencyPlan(batch=2, input_len=9, output_len=3, iterations=4), []
    trace = measure_latency(LLM(tiny, None, CONFIG), plan, MACHINE, 0, lambda: done.append(1))
    write_trace(tmp_path / "t", trace)
    requests = require_for_replay(read_trace(tmp_path / "t"))
    assert len(done) == 4 and len(requests) == 8 and (requests["cached_tokens"] == 0).all()
    assert (requests["output_tokens"] == 3).all() and len(set(requests["request_id"])) == 8
    starts, ends = requests["arrival_s"].to_numpy()[::2], requests["finish_s"].to_numpy().reshape(4, 2).max(axis=1)
    assert (starts[1:] >= ends[:-1]).all() and (requests["arrival_s"].to_numpy()[1::2] == starts).all()
    found = latencies(trace.requests)
    for figures in found.values():
        assert figures["min"] <= figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"]
    assert found["e2e_s"]["mean"] > found["ttft_s"]["mean"] > 0


def test_latency_refuses_what_cannot_be_served(tiny):
    llm = LLM(tiny, None, CONFIG)
    for plan, error, message in (
        (LatencyPlan(batch=5, input_len=8, output_len=2), InputError, "a batch of 5 exceeds max_num_seqs 4"),
        (LatencyPlan(input_len=120, output_len=20), InputError, "beyond the context of 128"),
    ):
        with pytest.raises(error, match=message):
            measure_latency(llm, plan, MACHINE, 0, lambda: None)
    with pytest.raises(InputError, match="iterations is 0"):
        LatencyPlan(iterations=0)


def test_sampling_takes_the_temperature_it_is_told(tiny):
    llm, seen = LLM(tiny, None, CONFIG), []
    add = llm.add
    llm.add = lambda prompt, params, **rest: seen.append(params.temperature) or add(prompt, params, **rest)
    session = serve.prepare(llm, mixed_256(2, 5), seed=0, temperature=0.6)
    seen.clear()  # of the warm-up
    trace = session.run(MACHINE, lambda live, end: None).trace
    assert seen == [0.6, 0.6] and trace.meta["workload"]["temperature"] == 0.6


def test_capacity_is_the_rate_while_the_engine_is_full():
    ends = np.concatenate([np.arange(1, 41) * 0.5, 20 + np.array([5.0, 9.0, 20.0])])  # two a second, then it drains
    table = pd.DataFrame({"arrival_s": 0.0, "finish_s": ends})
    assert capacity_per_s(table) == pytest.approx(2.0)
    assert capacity_per_s(pd.DataFrame({"arrival_s": 0.0, "finish_s": [4.0, 4.0]})) == pytest.approx(0.5)


def step(**values):
    columns = ("num_prefill_seqs", "prefill_tokens", "prefill_kv_tokens", "num_decode_seqs", "decode_kv_tokens")
    return {**dict.fromkeys(columns, 0), "wall_s": 2.0, "device_s": 1.5, **values}


def test_step_figures_are_of_the_compositions_that_the_targets_name():
    table = pd.DataFrame(
        [
            step(num_decode_seqs=64, decode_kv_tokens=64 * 128, device_s=0.1),  # too short a context
            step(num_decode_seqs=64, decode_kv_tokens=64 * 1100, device_s=0.5, wall_s=0.75),
            step(num_decode_seqs=64, decode_kv_tokens=64 * 1300, device_s=0.6),
            step(num_decode_seqs=256, decode_kv_tokens=256 * 4096),
            step(num_decode_seqs=1, decode_kv_tokens=1024, device_s=np.nan, wall_s=0.3),
            step(num_decode_seqs=64, decode_kv_tokens=64 * 1024, num_prefill_seqs=1, prefill_tokens=8),
            step(num_prefill_seqs=1, prefill_tokens=2048, prefill_kv_tokens=1024, device_s=9.0),
            step(num_prefill_seqs=1, prefill_tokens=2048, device_s=0.5),
        ]
    )
    assert step_figures(table, "8b") == {
        "decode_step_8b_1": 0.3, "decode_step_8b_64": 0.5, "host_work_8b_64": 0.25, "prefill_8b_2048": 4096.0
    }  # fmt: skip


def test_exposed_work_is_what_decode_steps_take_beyond_the_device():
    decode = {"num_decode_seqs": 2, "decode_kv_tokens": 64}
    walls = [step(**decode, wall_s=wall, device_s=1.0) for wall in (1.0, 1.2, 0.9, 1.3, 5.0)]
    others = [step(num_prefill_seqs=1, wall_s=9.0), step(**decode, wall_s=9.0, device_s=np.nan)]
    assert exposed_host_s(pd.DataFrame(walls + others)) == pytest.approx(0.2)
    assert exposed_host_s(pd.DataFrame(others)) is None


def bench(*arguments):
    from engine.cli import app

    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.fixture
def dummy(tmp_path, monkeypatch):
    """Options of an engine of random weights."""
    monkeypatch.setattr("engine.bench.machine.COPY_BYTES", 8 << 20)
    monkeypatch.setattr("engine.bench.machine.GEMM_SIZE", 128)
    tiny_preset(tmp_path / "tiny")
    return ["--model", tmp_path / "tiny", "--load-format", "dummy", "--device", "cpu", "--max-model-len", "128"]


def test_throughput_from_the_command_line(dummy, tmp_path):
    sizes = ["--num-requests", "3", "--longest", "6", "--out", tmp_path / "t"]
    result = bench("throughput", *dummy, *sizes, "--json")
    assert result.exit_code == 0, result.exception
    printed = json.loads(result.stdout)
    assert printed["throughput"]["output_tokens"] == 18 and printed["roofline"]["mbu"] > 0
    assert printed["roofline"]["datasheet"] is None
    result = bench("throughput", *dummy, *sizes, "--workload", "lengths", "--input-len", "4", "--output-len", "2")
    assert "12 prompt and 6 output tokens" in result.stdout and "memory (MBU)" in result.stdout
    assert read_trace(tmp_path / "t").requests["prompt_tokens"].tolist() == [4, 4, 4]
    wrong = bench("throughput", "--input-len", "4", "--out", tmp_path / "u")
    assert isinstance(wrong.exception, InputError) and "brings its own lengths" in str(wrong.exception)


def test_latency_from_the_command_line(dummy, tmp_path):
    sizes = ["--input-len", "5", "--output-len", "2", "--iterations", "2", "--out", tmp_path / "t"]
    result = bench("latency", *dummy, *sizes)
    assert result.exit_code == 0, result.exception
    assert "TPOT" in result.stdout and "of the roofline" in result.stdout
    assert json.loads((tmp_path / "t" / "bench.json").read_text())["completed"] == 2
    few = bench("latency", *dummy, *sizes, "--num-blocks", "2", "--input-len", "40")
    assert isinstance(few.exception, CapacityError) and "raise num_blocks" in str(few.exception)
