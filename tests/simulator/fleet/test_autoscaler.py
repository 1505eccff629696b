"""Replicas come and go with the load, after the delays they are told, and take nobody's answer with them."""

import dataclasses

import numpy as np
import pytest

from engine.core.config import EngineConfig
from roofline.errors import InputError
from simulator.fleet.autoscaler import Autoscaling
from simulator.fleet.cluster import FleetSpec, RunOptions, simulate
from simulator.fleet.job import FINISHED
from simulator.output.recorder import TraceRecorder
from simulator.scenario_file import from_text, to_yaml, with_changes
from tests.simulator.fakes import ConstantStep, workload
from tests.simulator.scenarios import small

ENGINE = EngineConfig(num_blocks=400, max_num_seqs=4, max_num_batched_tokens=512, max_model_len=512)
RULE = Autoscaling(max_replicas=5, target=4.0, interval_s=1.0, down_delay_s=5.0, start_s=2.0)


def served(rule, load, replicas=1):
    recorder = TraceRecorder(ENGINE)
    fleet = FleetSpec(ENGINE, replicas, autoscaling=rule)
    left = simulate(fleet, ConstantStep(0.01), load, recorder, RunOptions(record_token_times=True))
    return recorder.trace({}).requests, left


def in_waves():
    """20 seconds of 4 requests/s, 20 of 40, 80 of 4; each runs a second. The peak's queue is gone by 75."""
    arrivals = [np.arange(80) / 4, 20 + np.arange(800) / 40, 40 + np.arange(320) / 4]
    return workload(np.concatenate(arrivals), 8, 100)


def test_replicas_follow_the_load_and_lose_nothing():
    requests, replicas = served(RULE, in_waves())
    assert (requests["finish_reason"] == FINISHED).all()
    assert len(replicas) == 5, "40 requests/s of a second each make 40 outstanding: more than 5 replicas of 4"
    used = [set(requests["replica"][requests["arrival_s"].between(*span)]) for span in ((0, 20), (30, 40), (100, 120))]
    assert used[0] <= {0, 1}
    assert used[1] == {0, 1, 2, 3, 4}
    assert used[2] <= {0, 1}
    assert replicas[0].up_s == pytest.approx(requests["finish_s"].max())
    assert sum(replica.up_s for replica in replicas) < 0.7 * 5 * requests["finish_s"].max()


def test_a_new_replica_takes_its_time_to_load():
    requests, _ = served(RULE, in_waves())
    first = requests["arrival_s"][requests["replica"] >= 2].min()
    # looks at whole seconds: wanted at 21 at the earliest, up 2 s later
    assert first >= 23.0
    slower, _ = served(dataclasses.replace(RULE, up_delay_s=3.0, start_s=10.0), in_waves())
    assert slower["arrival_s"][slower["replica"] >= 2].min() >= 34.0


def test_to_zero_and_back():
    rule = dataclasses.replace(RULE, min_replicas=0, down_delay_s=3.0)
    requests, replicas = served(rule, workload([0.0, 60.0], 8, 10))
    assert (requests["finish_reason"] == FINISHED).all()
    # the look at 60 sees the request that waits, the model is loaded at 62 or, if the look came first, at 63
    assert requests["first_token_s"][1] - 60.0 == pytest.approx(2.01, abs=1.0)
    assert len(replicas) == 1
    assert replicas[0].up_s < 10


@pytest.mark.parametrize("gauge", ["waiting", "kv_use"])
def test_the_other_gauges_follow_the_load_too(gauge):
    target = {"waiting": 1.0, "kv_use": 0.02}[gauge]
    requests, replicas = served(dataclasses.replace(RULE, gauge=gauge, target=target), in_waves())
    assert (requests["finish_reason"] == FINISHED).all()
    assert len(replicas) > 2
    assert len(set(requests["replica"][requests["arrival_s"] > 100])) < len(replicas)


def test_more_replicas_never_hurt():
    waits = []
    for most in (1, 2, 5):
        requests, _ = served(dataclasses.replace(RULE, max_replicas=most), in_waves())
        waits.append((requests["first_token_s"] - requests["arrival_s"]).mean())
    assert waits == sorted(waits, reverse=True)
    assert waits[0] > 2 * waits[2]


def test_a_scenario_may_have_one():
    rule = {"max_replicas": 6, "target": 20, "gauge": "waiting", "min_replicas": 0}
    scenario = small(fleet__autoscaler=rule)
    assert from_text(to_yaml(scenario)) == scenario
    assert scenario.fleet.autoscaling == Autoscaling(6, 20.0, "waiting", 0)
    with pytest.raises(InputError, match=r"fleet\.autoscaler: the autoscaler keeps 9 to 6 replicas"):
        with_changes(scenario, {"fleet.autoscaler.min_replicas": 9})
