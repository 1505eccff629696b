"""Given the engine's recorded step times, the simulator makes the same batches and the same timestamps, bit for bit."""

import numpy as np
import pytest

from engine.bench import serve
from engine.bench.machine import Machine
from engine.core.config import EngineConfig
from engine.core.trace import read_trace, write_trace
from engine.core.workload import Workload, requests_of
from engine.serving.llm import LLM
from simulator.replay import ReplayOptions, run_again
from tests.engine.models import tiny_model
from tests.simulator.fakes import RecordedSteps

MACHINE = Machine("a test processor", 2, 1, 8 << 30, 1e10, 1.2e10, {"fp32": 1e11})
COMPOSITION = [
    *("step", "start_s", "wall_s", "num_prefill_seqs", "prefill_tokens", "prefill_kv_tokens", "prefill_attn_pairs"),
    *("num_decode_seqs", "decode_tokens", "decode_kv_tokens", "decode_kv_max", "cached_tokens", "kv_blocks_used"),
    *("kv_blocks_total", "num_running", "num_waiting", "num_preempted"),
]
TIMES = ["arrival_s", "send_s", "first_scheduled_s", "first_token_s", "finish_s", "cached_tokens", "num_preemptions"]


def busy_workload(shared: bool) -> Workload:
    """Forty requests in a tenth of a second: more than the cache of the test holds at once."""
    rng = np.random.default_rng(11)
    arrival_s = np.cumsum(rng.exponential(0.0025, 40))
    requests = requests_of(arrival_s, rng.integers(1, 60, 40), rng.integers(1, 40, 40))
    requests["priority"] = rng.integers(0, 3, 40)
    if not shared:
        return Workload(requests)
    # The last block is the request's own: equal prompts get equal answers, and a trace does not name answers' blocks.
    keys = tuple(
        np.append(np.arange(-(-n // 4) - 1) + 1000 * rng.integers(0, 3), 10_000 + i)
        for i, n in enumerate(requests["prompt_tokens"])
    )
    return Workload(requests, keys, 4)


@pytest.mark.parametrize("async_scheduling", [False, True])
@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize(("policy", "cap"), [("fcfs", None), ("fcfs", 6), ("priority", None)])
def test_recorded_step_times_give_the_recorded_run(tmp_path, async_scheduling, caching, policy, cap):
    config = EngineConfig(
        num_blocks=60, block_size=4, max_num_seqs=12, max_num_batched_tokens=48, max_model_len=128,
        enable_prefix_caching=caching, async_scheduling=async_scheduling, policy=policy,
    )  # fmt: skip
    llm = LLM(tiny_model(), None, config)
    session = serve.prepare(llm, busy_workload(caching), seed=3, max_concurrency=cap)
    served = session.run(MACHINE, lambda live, end: None)
    write_trace(tmp_path / "t", served.trace)
    recorded = read_trace(tmp_path / "t")
    simulated, assumed = run_again(
        recorded, RecordedSteps(recorded.steps["wall_s"].tolist()), ReplayOptions(), fast_forward=False
    )
    assert not assumed
    different = simulated.steps[COMPOSITION].compare(recorded.steps[COMPOSITION])
    assert different.empty, different.to_string()
    assert simulated.requests[TIMES].compare(recorded.requests[TIMES]).empty
    for one, other in zip(simulated.requests["token_times_s"], recorded.requests["token_times_s"], strict=True):
        assert one.tolist() == other.tolist()
    if cap is None:
        assert recorded.steps["num_preempted"].sum() > 0, "the test is about pressure too"
