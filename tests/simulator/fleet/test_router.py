"""Routers: each does what its name says, on what one can know outside an engine."""

from collections import Counter
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pytest

from engine.core.config import EngineConfig
from engine.core.request import Request
from simulator.fleet.cluster import FleetSpec, simulate
from simulator.fleet.job import Job
from simulator.fleet.router import ROUTERS
from simulator.scenario_fleet import RouterName
from tests.simulator.fakes import ConstantStep, FirstTokens, workload
from tests.simulator.fleet.test_conversations import run, talk

ENGINE = EngineConfig(num_blocks=400, max_num_seqs=8, max_num_batched_tokens=512, max_model_len=512)


@dataclass(eq=False)
class Gauges:
    """What a router reads of a replica."""

    number: int = 0
    num_outstanding: int = 0
    outstanding_tokens: int = 0
    kv_use: float = 0.0
    scheduler: object = field(default_factory=lambda: type("S", (), {"config": ENGINE}))


def router(name, seed=0):
    return ROUTERS[name](np.random.default_rng(seed))


def job(prompt=100, session=None, keys=()):
    return Job(0, Request("0", prompt, 10, block_keys=list(keys)), 10, 0.0, session)


def test_the_scenario_names_exactly_these():
    assert set(get_args(RouterName)) == set(ROUTERS)


@pytest.mark.parametrize(
    ("name", "gauge"),
    [("least_outstanding", "num_outstanding"), ("least_tokens", "outstanding_tokens"), ("least_kv", "kv_use")],
)
def test_the_least_takes_it_and_the_first_of_equals(name, gauge):
    replicas = [Gauges(**{gauge: value}) for value in (3, 1, 2, 1)]
    assert router(name)(replicas, job()) is replicas[1]


def test_chance_is_even():
    replicas = [Gauges(number) for number in range(4)]
    for name in ("random", "power_of_two"):
        route = router(name)
        hits = Counter(route(replicas, job()).number for _ in range(8000))
        assert all(abs(hits[number] - 2000) < 200 for number in range(4)), (name, hits)


def test_power_of_two_never_takes_the_fullest_and_prefers_the_emptier():
    replicas = [Gauges(0, 5), Gauges(1, 0), Gauges(2, 3)]
    route = router("power_of_two")
    hits = Counter(route(replicas, job()).number for _ in range(3000))
    assert hits[0] == 0
    assert hits[1] == pytest.approx(2000, abs=150), "the emptiest wins whenever it is drawn: 2 pairs of 3"


def test_a_session_stays_where_it_is_until_its_replica_closes():
    replicas = [Gauges(0), Gauges(1)]
    route = router("session_affinity")
    assert route(replicas, job(session="a")) is replicas[0]
    replicas[0].num_outstanding = 9
    assert route(replicas, job(session="a")) is replicas[0]
    assert route(replicas, job(session="b")) is replicas[1]
    assert route(replicas, job()) is replicas[1]
    assert route(replicas[1:], job(session="a")) is replicas[1]
    assert route(replicas, job(session="a")) is replicas[1], "it has moved"


def test_the_longest_prefix_decides_unless_its_replica_is_too_full():
    replicas = [Gauges(0), Gauges(1)]
    route = router("prefix_affinity")
    keys = list(range(64))  # 1,024 tokens in blocks of 16
    assert route(replicas, job(1024, keys=keys)) is replicas[0]
    replicas[0].num_outstanding, replicas[1].num_outstanding = 2, 1
    assert route(replicas, job(2048, keys=[*keys, *range(500, 564)])) is replicas[0], "2 of 3 is within the bound"
    assert route(replicas, job(1024, keys=range(700, 764))) is replicas[1], "nobody has seen it"
    replicas[0].num_outstanding = 9
    assert route(replicas, job(1024, keys=keys)) is replicas[1]
    assert route(replicas, job(1024, keys=keys)) is replicas[1], "and has it from now on"
    assert route(replicas, job(100, keys=keys[:6])) is replicas[1], "too short to remember: the least outstanding"


def test_least_outstanding_counts_running_requests_too():
    """One long answer runs on replica 0 and nothing waits anywhere: the next request goes to replica 1."""
    load = workload([0.0, 0.5, 1.0], 8, [400, 1, 1])
    replicas = simulate(FleetSpec(ENGINE, 2), ConstantStep(0.01), load, FirstTokens())
    assert [replica.busy_s for replica in replicas] == pytest.approx([4.0, 0.02])


def test_affinity_finds_the_cache_that_others_miss():
    cached = {}
    for name in ("round_robin", "session_affinity", "prefix_affinity"):
        load = talk([6] * 40, new=64, output=4, users=4)
        fleet = FleetSpec(EngineConfig(num_blocks=4000, block_size=4, max_model_len=512), 3, name)
        cached[name] = run(load, fleet).requests["cached_tokens"].sum()
    assert cached["session_affinity"] > 2 * cached["round_robin"]
    assert cached["prefix_affinity"] > 1.5 * cached["round_robin"]


def test_no_router_beats_one_queue_and_joining_the_shortest_beats_chance():
    rng = np.random.default_rng(5)
    load = workload(np.cumsum(rng.exponential(0.0125, 4000)), 8, rng.geometric(1 / 4, 4000))
    one_by_one = EngineConfig(num_blocks=100, max_num_seqs=1, max_num_batched_tokens=64, max_model_len=512)
    waits = {}
    for name in ("least_outstanding", "power_of_two", "random"):
        first = FirstTokens()
        simulate(FleetSpec(one_by_one, 4, name), ConstantStep(0.01), load, first)
        waits[name] = np.mean(first.ttft_s)
    assert waits["least_outstanding"] < waits["power_of_two"] < waits["random"]
