"""One run whose KV cache is too small and whose client is some way off: everything that can delay a request does."""

from dataclasses import asdict

import numpy as np

from engine.core.config import EngineConfig
from engine.core.trace import Trace
from engine.core.trace_meta import ClientLink
from simulator.fleet.cluster import FleetSpec, RunOptions, simulate
from simulator.output.collector import Both
from simulator.output.recorder import TraceRecorder
from tests.simulator.fakes import LinearStep, workload

ENGINE = EngineConfig(num_blocks=60, block_size=4, max_num_seqs=24, max_num_batched_tokens=32, max_model_len=200)
LINK = ClientLink(to_engine_s=0.013, to_client_s=0.007)


def crowded(num_requests=300, replicas=2, seed=5, observer=None) -> Trace:
    """A recorded run with queueing and preemptions; `observer` sees it too."""
    rng = np.random.default_rng(seed)
    arrival_s, lengths = np.cumsum(rng.exponential(0.012, num_requests)), rng.integers(1, 60, (2, num_requests))
    load = workload(arrival_s, 2 * lengths[0], lengths[1])
    recorder = TraceRecorder(ENGINE)
    watch = recorder if observer is None else Both(recorder, observer)
    simulate(FleetSpec(ENGINE, replicas, client=LINK), LinearStep(), load, watch, RunOptions(record_token_times=True))
    meta = {
        "client": asdict(LINK), "engine_config": ENGINE.as_dict(), "model": {"name": "llama-3.1-8b"},
        "hardware": {"name": "H100", "count": replicas}, "tensor_parallel": 1, "replicas": replicas,
        "weight_dtype": "bf16", "engine": {"name": "headroom-simulator"}, "workload": {"request_rate": 20.0},
    }  # fmt: skip
    return recorder.trace(meta)
