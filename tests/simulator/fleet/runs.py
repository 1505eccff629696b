"""Random fleets under random load, small enough to run by the hundred, and what they did."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from engine.core.config import EngineConfig
from engine.core.trace_meta import ClientLink
from engine.core.workload import Workload
from simulator.fleet.admission import AdmissionRules, Level, TokenBudget
from simulator.fleet.autoscaler import Autoscaling
from simulator.fleet.cluster import FleetSpec, RunOptions, simulate
from simulator.fleet.disaggregation import Split
from simulator.fleet.faults import Crash, Crashes, RollingUpgrade, Slowdown, SpotInterruption
from simulator.fleet.patience import Patience, Retries
from simulator.fleet.router import ROUTERS
from simulator.output.recorder import TraceRecorder
from tests.simulator.fakes import LinearStep, workload

LIMIT_S = st.none() | st.sampled_from([0.02, 0.1, 0.5])
TIME_S = st.sampled_from([0.0, 0.05, 0.3, 1.0])
PATIENCE = st.builds(
    Patience,
    timeout_s=LIMIT_S,
    first_token_timeout_s=LIMIT_S,
    abort_share=st.sampled_from([0.0, 0.3]),
    abort_after_s=st.sampled_from([0.0, 0.1]),
    retries=st.builds(
        Retries, attempts=st.integers(1, 3), backoff_s=st.sampled_from([0.0, 0.05]), jitter=st.sampled_from([0.0, 1.0])
    ),
)


ADMISSION = st.builds(
    AdmissionRules,
    max_outstanding=st.none() | st.integers(1, 9),
    levels=st.lists(
        st.builds(Level, st.integers(0, 5), st.none() | st.integers(1, 20), st.none() | st.integers(0, 2)), max_size=2
    ).map(tuple),
    budgets=st.just({}) | st.just({"*": TokenBudget(900.0, 600.0, 0.5)}),
)
SPLIT = st.builds(Split, st.just(1), st.just(1000.0), st.sampled_from([1e6, 1e5]), st.sampled_from([0.0, 0.01]))
AUTOSCALING = st.builds(
    Autoscaling,
    max_replicas=st.integers(1, 4),
    target=st.sampled_from([0.3, 2.0]),
    gauge=st.sampled_from(["outstanding", "waiting", "kv_use"]),
    min_replicas=st.integers(0, 1),
    interval_s=st.just(0.07),
    up_delay_s=st.sampled_from([0.0, 0.1]),
    down_delay_s=st.sampled_from([0.0, 0.2]),
    start_s=st.sampled_from([0.0, 0.15]),
)


def faults_of(num_replicas):
    """Faults of a fleet that starts with so many replicas."""
    which = st.integers(0, num_replicas - 1)
    again = st.none() | TIME_S
    return st.one_of(
        st.builds(Crash, which, TIME_S, again),
        st.builds(Crashes, st.sampled_from([0.1, 0.5]), TIME_S),
        st.builds(Slowdown, which, TIME_S, TIME_S, st.sampled_from([0.5, 3.0])),
        st.builds(RollingUpgrade, TIME_S, TIME_S, TIME_S),
        st.builds(SpotInterruption, which, TIME_S, TIME_S, again),
    )


@st.composite
def runs(draw, trouble=False):
    """A small fleet and a workload that may preempt, queue, and share prefixes; `trouble` adds what ends requests."""
    block_size = draw(st.sampled_from([1, 4, 16]))
    longest = draw(st.integers(16, 96))
    floor = -(-longest // block_size) + 1
    seqs = draw(st.integers(1, 8))
    engine = EngineConfig(
        num_blocks=floor + draw(st.integers(0, 4 * floor)),
        block_size=block_size,
        max_num_seqs=seqs,
        max_num_batched_tokens=draw(st.integers(seqs, 128)),
        max_model_len=longest,
        enable_prefix_caching=draw(st.booleans()),
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 7])),
        async_scheduling=draw(st.booleans()),
        policy=draw(st.sampled_from(["fcfs", "priority"])),
    )
    client = ClientLink(draw(st.sampled_from([None, 1, 3])), *draw(st.sampled_from([(0.0, 0.0), (0.004, 0.002)])))
    replicas = draw(st.integers(1, 3))
    fleet = FleetSpec(engine, replicas, draw(st.sampled_from(sorted(ROUTERS))), client, seed=draw(st.integers(0, 99)))
    if trouble:
        patience, faults = draw(st.none() | PATIENCE), tuple(draw(st.lists(faults_of(replicas), max_size=3)))
        admission, autoscaling = draw(st.none() | ADMISSION), draw(st.none() | AUTOSCALING)
        split = draw(st.none() | SPLIT) if replicas > 1 and autoscaling is None else None
        fleet = dataclasses.replace(
            fleet, patience=patience, faults=faults, admission=admission, autoscaling=autoscaling, split=split
        )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 40))
    arrival_s = np.cumsum(rng.exponential(draw(st.sampled_from([0.001, 0.02, 0.2])), count))
    prompt = rng.integers(1, longest - 1, count)
    output = 1 + rng.integers(0, longest - prompt)
    load = workload(arrival_s, prompt, output)
    load.requests["max_tokens"] = output + rng.integers(0, 2, count) * 5
    load.requests["priority"] = rng.integers(0, 3, count)
    keys = tuple(np.arange(-(-n // block_size)) + 1000 * rng.integers(0, 3) for n in prompt)
    return fleet, Workload(load.requests, keys, block_size)


def record(fleet, load, fast_forward):
    recorder = TraceRecorder(fleet.engine)
    simulate(fleet, LinearStep(), load, recorder, RunOptions(fast_forward=fast_forward, record_token_times=True))
    return recorder.trace({})
