"""A plan agrees with trying every fleet, moves the right way with load and target, and explains itself."""

from dataclasses import replace

import numpy as np
import pytest

from calibration import profile as profiles
from engine.core.workload import Workload, requests_of
from roofline.errors import CapacityError, InfeasibleError, InputError
from simulator.deployment import resolve
from simulator.planning.benchmark import benchmark_command
from simulator.planning.criteria import is_settled
from simulator.planning.load_curve import load_curve
from simulator.planning.plan import plan
from simulator.planning.steady import steady_run
from tests.simulator.scenarios import small


@pytest.fixture(scope="module")
def sized():
    return plan(small(workload__request_rate=150.0))


@pytest.mark.parametrize("rate", [40.0, 150.0])
def test_the_plan_is_what_trying_every_fleet_finds(rate):
    scenario = small(workload__request_rate=rate)
    deployment = resolve(scenario)
    enough = [n for n in range(1, 6) if steady_run(deployment, n, is_settled).meets_targets]
    assert plan(scenario).replicas == min(enough)
    assert enough == list(range(min(enough), 6))


def test_more_load_never_needs_fewer():
    needed = [plan(small(workload__request_rate=rate)).replicas for rate in (30.0, 100.0, 200.0)]
    assert needed == sorted(needed)
    assert needed[0] < needed[-1]


def test_a_looser_target_never_needs_more():
    needed = [plan(small(workload__request_rate=150.0, slo__tpot_ms=target)).replicas for target in (13, 20, 60)]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > needed[-1]


def test_the_plan_holds_and_one_fewer_does_not(sized):
    assert sized.chosen.meets_targets
    assert sized.one_fewer is not None
    assert not sized.one_fewer.meets_targets
    assert sized.one_fewer.replicas == sized.replicas - 1
    for metric, target_s in sized.chosen.targets_s.items():
        assert sized.chosen.latencies[metric].at_target.high < target_s


def test_the_interval_holds_the_answer_and_names_what_it_includes(sized):
    assert 1 <= sized.interval.low <= sized.replicas <= sized.interval.high
    assert "30" in sized.interval.includes
    slower = resolve(small(workload__request_rate=150.0)).slowed(1.3)
    assert steady_run(slower, sized.interval.high, is_settled).meets_targets


def test_slower_passes_never_need_fewer():
    deployment = resolve(small(workload__request_rate=150.0))
    replicas = plan(small(workload__request_rate=150.0)).replicas
    assert not steady_run(deployment.slowed(1.5), replicas - 1, is_settled).meets_targets


def test_costs_add_up(sized):
    cost = sized.cost
    assert cost.per_hour.typical == pytest.approx(4.0 * sized.gpus)
    assert cost.per_month.high == pytest.approx(12.29 * sized.gpus * 730)
    tokens_per_hour = sized.chosen.output_tokens_per_s * 3600
    assert cost.per_million_output_tokens.low * tokens_per_hour / 1e6 == pytest.approx(2.58 * sized.gpus)
    assert cost.per_million_tokens.typical < cost.per_million_output_tokens.typical


def test_prices_of_the_scenario_come_first():
    found = plan(small(prices={"low": 1, "typical": 2, "high": 3}))
    assert found.cost.per_gpu_hour.typical == 2
    assert found.cost.per_hour.high == 3 * found.gpus


def test_tensor_parallel_counts_once():
    found = plan(small(parallelism__tensor=2, workload__request_rate=150.0))
    assert found.gpus == 2 * found.replicas == found.chosen.gpus
    assert found.scope == f"{found.gpus} GPUs = {found.replicas} replica{'s' * (found.replicas > 1)} x TP2"


def test_little_kv_memory_is_the_constraint():
    scenario = small(workload__request_rate=60.0, workload__output_tokens=200, engine__num_blocks=300, slo__ttft_ms=400)
    assert plan(scenario).binding.constraint == "kv_memory"


def test_few_places_are_the_constraint():
    scenario = small(
        workload__prompt_tokens=32, workload__output_tokens=200, engine__max_num_seqs=8, run__max_requests=12_000
    )
    assert plan(scenario).binding.constraint == "sequence_limit"


def test_compute_is_the_constraint():
    scenario = small(workload__request_rate=120.0, workload__prompt_tokens=1500, workload__output_tokens=4)
    assert plan(scenario).binding.constraint == "compute"


def test_the_benchmark_command_has_the_load(sized):
    assert "--request-rate 150" in sized.benchmark_command
    assert "--goodput ttft:200 tpot:30" in sized.benchmark_command
    assert "--random-input-len 400" in sized.benchmark_command


def test_the_benchmark_is_that_of_the_measured_engine_under_its_settings(sized):
    deployment = resolve(small(engine__num_blocks=900, engine__enable_prefix_caching=False, client__max_concurrency=7))
    profile = profiles.load(profiles.SHIPPED / "qwen3-32b_b300_tp1_vllm-0.20.1.json")
    for name, command in (("vLLM", "vllm bench serve"), ("headroom", "engine bench serve")):
        measured = replace(profile, provenance=replace(profile.provenance, engine={"name": name}))
        words = benchmark_command(replace(deployment, step_time=measured), sized.chosen)
        assert words.startswith(command)
        assert f"--max-concurrency {7 if name == 'vLLM' else -(-7 // sized.replicas)}" in words
    assert "--num-blocks 900" in words and "--block-size 16" in words and "--no-prefix-caching" in words


def test_a_recording_is_checked_with_its_own_mean_lengths(sized):
    recorded = Workload(requests_of(np.arange(4.0), np.array([10, 20, 30, 40]), np.array([5, 5, 6, 8])))
    words = benchmark_command(replace(resolve(small()), recorded=recorded), sized.chosen)
    assert "--random-input-len 25" in words and "--random-output-len 6" in words


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"slo": {"ttft_ms": 1}}, InfeasibleError, "slo.ttft_ms is 1, .*nearest change: .*slo.ttft_ms above"),
        ({"slo__tpot_ms": 5}, InfeasibleError, "nearest change: parallelism.tensor [248], or slo.tpot_ms above"),
        ({"slo": {}}, InputError, "slo is empty"),
        ({"fleet__max_replicas": 1, "workload__request_rate": 500}, InfeasibleError, "raise fleet.max_replicas"),
        ({"model": "llama-3.1-70b"}, CapacityError, "it fits with tensor parallelism"),
        ({"model": "gpt-9"}, InputError, "model: .*gpt-9"),
        ({"hardware__accelerator": "H900"}, InputError, "hardware.accelerator: .*H900"),
        ({"step_time__profile": "nowhere.json"}, InputError, "step_time.profile: nowhere.json does not exist"),
        ({"step_time__profile": "qwen3-32b_b300_tp1_vllm-0.20.1"}, InputError, "hardware is H100 here and B300"),
        ({"engine__num_blocks": 20}, InputError, "workload: .*num_blocks"),
        ({"engine__max_model_len": 300}, InputError, "workload: .*max_model_len"),
        ({"engine__max_model_len": 10**7}, InputError, "engine.max_model_len is 10000000"),
        ({"engine__max_num_batched_tokens": 64}, InputError, "engine: max_num_batched_tokens is 64"),
        ({"workload__prompt_tokens": "lognormal:60000:1"}, InputError, "LONGEST"),
        ({"parallelism__tensor": 7}, InputError, "tensor parallelism of 7"),
    ],
)
def test_a_question_without_an_answer_gets_a_reason_and_a_remedy(changes, error, told):
    with pytest.raises(error, match=told):
        plan(small(**changes))


def test_a_transferred_profile_is_marked():
    scenario = small(step_time={"profile": "qwen3-32b_b300_tp1_vllm-0.20.1", "transfer": True}, slo__tpot_ms=60)
    found = plan(scenario)
    assert found.chosen.badge == "transferred"
    assert any("taken over unchanged" in text for text in found.assumptions)


def test_latency_rises_through_the_knee():
    curve = load_curve(small(fleet__replicas=2), loads=(0.2, 0.5, 0.8, 1.3))
    steady = [point for point in curve.points if point.is_steady]
    assert [point.is_steady for point in curve.points] == [True, True, True, False]
    means = [point.latencies["ttft_s"].mean.value for point in steady]
    assert means == sorted(means)
    assert curve.max_sustainable_rate_per_s == steady[-1].offered_rate_per_s
