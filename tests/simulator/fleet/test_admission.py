"""Who is let in: bounds hold exactly, budgets on average, and what was reserved and not used comes back."""

import dataclasses

import numpy as np
import pytest

from engine.core.config import EngineConfig
from engine.core.request import Request
from roofline.errors import InputError
from simulator.deployment import resolve
from simulator.fleet.admission import Admission, AdmissionRules, Bucket, Level, TokenBudget
from simulator.fleet.cluster import FleetSpec
from simulator.fleet.faults import Crash
from simulator.fleet.job import ABORTED, FINISHED, REJECTED, Job
from simulator.fleet.patience import Patience, Retries
from simulator.planning.criteria import is_clear
from simulator.planning.steady import steady_run
from simulator.scenario_file import from_text, to_yaml, with_changes
from simulator.workload_source import requests
from tests.simulator.fakes import workload
from tests.simulator.fleet.test_ends import served
from tests.simulator.scenarios import small

ENGINE = EngineConfig(num_blocks=400, max_num_seqs=2, max_num_batched_tokens=512, max_model_len=512)


def fleet(rules, replicas=1):
    return FleetSpec(ENGINE, replicas, "round_robin", admission=rules)


def job(prompt=100, answer=50, tenant=None, priority=0):
    return Job(0, Request("0", prompt, answer, priority=priority), answer, 0.0, tenant=tenant)


def test_no_more_than_the_bound_are_outstanding():
    requests = served(fleet(AdmissionRules(max_outstanding=3), 2), workload(np.zeros(20), 8, 10))
    assert requests["finish_reason"].tolist() == [FINISHED] * 6 + [REJECTED] * 14
    assert (requests["finish_s"][6:] == 0.0).all()
    assert (requests["replica"][6:] == -1).all()


def test_levels_shorten_answers_and_shed_the_less_urgent():
    load = workload(np.zeros(6), 8, 10)
    load.requests["priority"] = [0, 0, 0, 1, 0, 1]
    rules = AdmissionRules(levels=(Level(3, reject_from=1), Level(1, max_tokens=4)))
    requests = served(fleet(rules), load)
    # loads at the arrivals: 0, 1, 2, 3, 4, 5
    assert requests["output_tokens"].tolist() == [10, 10, 4, 4, 4, 0]
    assert requests["finish_reason"].tolist() == [FINISHED] * 5 + [REJECTED]


def test_a_bucket_holds_its_burst_and_fills_at_its_rate():
    bucket = Bucket(10.0, 3.0)
    assert bucket.level(0.0) == 30.0
    bucket.add(-25.0, 0.0)
    assert bucket.level(1.0) == 15.0
    assert bucket.level(100.0) == 30.0
    bucket.add(99.0, 100.0)
    assert bucket.level(100.0) == 30.0, "a refund overflows"


def test_what_was_reserved_and_not_used_comes_back():
    admission = Admission(AdmissionRules(budgets={"*": TokenBudget(output_per_s=1.0, burst_s=100.0)}))
    first, second = job(answer=80), job(answer=80)
    assert admission.admits(first, 0, 0.0)
    assert not admission.admits(second, 0, 0.0), "20 tokens are left"
    first.finish_reason, first.request.num_tokens_settled = ABORTED, 100 + 15
    admission.settle(first, 0.0)
    assert admission.admits(second, 0, 0.0), "65 of the 80 have come back: 85 tokens"
    admission.settle(first, 0.0)
    assert not admission.admits(job(answer=6), 0, 0.0), "nothing comes back twice: 5 are left"


def test_tenants_do_not_use_each_others_budgets():
    budgets = {"gold": TokenBudget(1000.0, None, 1.0), "*": TokenBudget(150.0, None, 1.0)}
    admission = Admission(AdmissionRules(budgets=budgets))
    assert [admission.admits(job(tenant="a"), 0, 0.0) for _ in range(2)] == [True, False]
    assert [admission.admits(job(tenant="b"), 0, 0.0) for _ in range(2)] == [True, False]
    assert all(admission.admits(job(tenant="gold"), 0, 0.0) for _ in range(10))


def test_a_budget_holds_on_average():
    """20 requests a second of 10 tokens each against 50 tokens a second: one in four is let in."""
    rules = AdmissionRules(budgets={"*": TokenBudget(output_per_s=50.0, burst_s=1.0)})
    requests = served(fleet(rules, 4), workload(np.arange(4000) * 0.05, 8, 10))
    assert (requests["finish_reason"] == FINISHED).sum() * 10 / 200 == pytest.approx(50.0, rel=0.02)


def test_shedding_keeps_an_overloaded_fleet_of_use():
    """At twice the capacity an open door serves everybody too late; a bound serves half of them in time."""
    load = workload(np.arange(2000) * 0.025, 8, 10)  # the replica serves 20 a second
    shed = served(fleet(AdmissionRules(max_outstanding=4)), load)
    kept = shed["finish_reason"] == FINISHED
    assert kept.mean() == pytest.approx(0.5, rel=0.05)
    assert (shed["finish_s"] - shed["arrival_s"])[kept].max() < 0.25
    everybody = served(FleetSpec(ENGINE), load)
    assert (everybody["finish_s"] - everybody["arrival_s"]).max() > 40.0


def test_a_retry_storm_outlives_its_cause():
    """At 90 % load a crash of 3 s is forgotten within 10 s where clients wait, and never where they come back at once:
    the work for those who gave up is what the others then wait for."""
    rng = np.random.default_rng(3)
    load = workload(np.cumsum(rng.exponential(1 / 18, 3000)), 8, 10)
    calm = FleetSpec(ENGINE, faults=(Crash(0, 20.0, 3.0),))
    patience = Patience(timeout_s=1.0, retries=Retries(attempts=8, backoff_s=0.05, factor=1.0))
    stormy = dataclasses.replace(calm, patience=patience)
    late = {}
    for name, spec in (("calm", calm), ("stormy", stormy)):
        requests = served(spec, load)
        after = requests[requests["arrival_s"] > 90.0]
        late[name] = (after["finish_reason"] != FINISHED).mean()
    assert late["calm"] == 0
    assert late["stormy"] > 0.3


TENANTS = """
model: llama-3.1-8b
hardware: {accelerator: H100}
engine: {policy: priority}
workload:
  request_rate: 30
  prompt_tokens: 300
  output_tokens: 40
  tenants:
    - {name: gold, share: 1, priority: 0}
    - {name: bulk, share: 3, priority: 5, prompt_tokens: 900}
fleet:
  admission:
    max_outstanding: 64
    levels: [{above: 40, max_tokens: 20, reject_from: 5}]
    budgets: [{tenant: gold, input_per_s: 5000}, {output_per_s: 400, burst_s: 10}]
slo: {ttft_ms: 300, percentile: 95}
run: {min_requests: 400, max_requests: 2000}
"""


def test_a_scenario_with_tenants_and_rules():
    scenario = from_text(TENANTS)
    assert from_text(to_yaml(scenario)) == scenario
    table = requests(scenario.workload, None, 4000, 1).requests
    gold = table["tenant"] == "gold"
    assert gold.mean() == pytest.approx(0.25, abs=0.03)
    assert set(table["prompt_tokens"][gold]) == {300}
    assert set(table["prompt_tokens"][~gold]) == {900}
    assert set(table["priority"][~gold]) == {5}
    result = steady_run(resolve(scenario), 1, is_clear)
    # bulk may use 400 tokens a second, and asks for 22.5 x 40
    assert result.attainment.value < 0.75
    assert result.latencies["ttft_s"].at_target.high == float("inf"), "who is rejected waits for ever"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fleet.admission": {"max_outstanding": 0}}, "fleet.admission.max_outstanding is 0; it must be greater"),
        ({"fleet.admission": {"budgets": [{}, {}]}}, "fleet.admission: budgets name a tenant twice"),
        ({"fleet.admission": {"levels": [{"abov": 1}]}}, "fleet.admission.levels.0.abov is no setting; write above."),
        ({"workload.tenants": [{"name": "a", "share": 0}]}, "workload.tenants.0.share is 0; it must be greater than 0"),
        ({"workload.tenants": [{"share": 1}]}, "workload.tenants.0.name is missing; add it."),
    ],
)
def test_faults_of_the_rules_are_told(change, told):
    with pytest.raises(InputError) as raised:
        with_changes(small(), change)
    assert told in str(raised.value)
