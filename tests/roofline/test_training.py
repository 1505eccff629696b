from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline.errors import InputError
from roofline.hardware import accelerator
from roofline.model_shape import ModelShape, catalogue_names
from roofline.training import (
    COPIES,
    Speed,
    TrainingSetup,
    changes_that_fit,
    flops_per_token,
    lora_parameters,
    recomputed_flops_per_token,
    state_bytes,
    trained_parameters,
    training_memory,
    training_run,
)

LLAMA_8B = ModelShape.from_catalogue("llama-3.1-8b")
SETUPS = st.builds(
    TrainingSetup,
    accelerators=st.integers(1, 512),
    zero_stage=st.sampled_from([0, 1, 2, 3]),
    method=st.sampled_from(list(COPIES)),
    adapter=st.sampled_from(["full", "lora", "qlora"]),
    lora_rank=st.integers(1, 256),
    optimizer=st.sampled_from(["adamw", "adamw-8bit", "sgd-momentum"]),
    micro_batch_tokens=st.integers(1, 100_000),
    checkpointing=st.booleans(),
)


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero_stages_of_the_paper(stage, gigabytes):
    """7.5 billion parameters on 64 accelerators: figure 1 of Rajbhandari et al., 2020."""
    parts = state_bytes(7.5e9, TrainingSetup(accelerators=64, zero_stage=stage))
    assert sum(parts.values()) == pytest.approx(gigabytes * 1e9, rel=0.02)


@given(st.sampled_from(catalogue_names()), SETUPS)
def test_later_stages_and_more_accelerators_never_hold_more_state(name, setup):
    def states(setup: TrainingSetup) -> float:
        return sum(state_bytes(ModelShape.from_catalogue(name).num_parameters, setup).values())

    assert states(replace(setup, accelerators=2 * setup.accelerators)) <= states(setup)
    if setup.zero_stage < 3:
        assert states(replace(setup, zero_stage=setup.zero_stage + 1)) <= states(setup)


@given(st.sampled_from(catalogue_names()), SETUPS)
def test_parts_sum_and_adapters_and_recomputation_save_memory(name, setup):
    shape = ModelShape.from_catalogue(name)
    memory = training_memory(shape, setup)
    assert memory.total_bytes == pytest.approx(sum(memory.parts.values()))
    assert all(size > 0 for size in memory.parts.values())
    kept = training_memory(shape, replace(setup, checkpointing=False)).parts["activations"]
    again = training_memory(shape, replace(setup, checkpointing=True)).parts["activations"]
    assert again < kept
    sizes = [training_memory(shape, replace(setup, adapter=kind, lora_rank=8)).total_bytes for kind in ("full", "lora")]
    assert sizes[1] < sizes[0]


def test_copies_of_the_methods():
    assert {method: copies.total for method, copies in COPIES.items()} == {
        "pretrain": 1, "sft": 1, "dpo": 2, "grpo": 2, "ppo": 4,
    }  # fmt: skip
    sizes = {
        method: training_memory(LLAMA_8B, TrainingSetup(zero_stage=0, method=method)).parts.get("frozen copies", 0.0)
        for method in COPIES
    }
    one = LLAMA_8B.weight_bytes()
    assert sizes == pytest.approx({"pretrain": 0, "sft": 0, "dpo": one, "grpo": one, "ppo": 2 * one})
    ppo = training_memory(LLAMA_8B, TrainingSetup(zero_stage=0, method="ppo"))
    assert ppo.parts["optimizer"] == 2 * 12 * LLAMA_8B.num_parameters  # policy and value are both trained


def test_adapters_of_rank_16_on_llama_8b_are_41_9_million():
    """What the PEFT library counts for rank 16 on all linear layers."""
    assert lora_parameters(LLAMA_8B, 16) == 41_943_040
    assert trained_parameters(LLAMA_8B, TrainingSetup(adapter="lora")) == 41_943_040
    assert lora_parameters(LLAMA_8B, 32) == 2 * 41_943_040


def test_qlora_of_70b_fits_one_accelerator_of_80_gb_and_lora_does_not():
    shape = ModelShape.from_catalogue("llama-3.1-70b")
    setup = TrainingSetup(accelerators=1, zero_stage=0, adapter="qlora", micro_batch_tokens=2048)
    assert training_memory(shape, setup).total_bytes < 80e9
    assert training_memory(shape, replace(setup, adapter="lora")).total_bytes > 80e9
    assert training_memory(shape, setup).parts["frozen weights"] == pytest.approx(39.5e9, rel=0.01)


def test_flops_are_six_for_each_weight_and_token():
    plain = TrainingSetup()
    assert flops_per_token(LLAMA_8B, plain) == 6 * LLAMA_8B.num_parameters
    assert recomputed_flops_per_token(LLAMA_8B, plain) == 2 * LLAMA_8B.num_parameters
    assert recomputed_flops_per_token(LLAMA_8B, replace(plain, checkpointing=False)) == 0
    assert flops_per_token(LLAMA_8B, replace(plain, adapter="lora")) == 4 * LLAMA_8B.num_parameters
    assert flops_per_token(LLAMA_8B, replace(plain, method="dpo")) == 8 * LLAMA_8B.num_parameters
    assert flops_per_token(LLAMA_8B, replace(plain, method="ppo")) == 16 * LLAMA_8B.num_parameters
    mixture = ModelShape.from_catalogue("qwen3-30b-a3b")
    assert flops_per_token(mixture, plain) == 6 * mixture.active_parameters


def test_llama_3_405b_took_the_days_that_its_report_implies():
    """3.8e25 FLOPs for 15.6e12 tokens on 16,384 H100 at 41 % MFU: 66 days without interruptions."""
    shape, setup = ModelShape.from_catalogue("llama-3.1-405b"), TrainingSetup(accelerators=16_384)
    run = training_run(shape, setup, accelerator("H100"), 15.6e12, speed=Speed(mfu=0.41), usd_per_hour=2.0)
    assert run.train_flops == pytest.approx(3.8e25, rel=0.01)
    assert run.days == pytest.approx(66, rel=0.01)
    assert run.usd == pytest.approx(run.days * 24 * 16_384 * 2.0)


def test_sampling_first_takes_longer_and_a_run_without_price_has_none():
    h100 = accelerator("H100")
    runs = {method: training_run(LLAMA_8B, TrainingSetup(method=method), h100, 1e9) for method in ("dpo", "grpo")}
    assert runs["grpo"].seconds > runs["dpo"].seconds
    assert runs["grpo"].generation_flops == 2e9 * LLAMA_8B.num_parameters
    assert runs["dpo"].usd is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zero_stage": 4}, "zero_stage 4; use one of 0, 1, 2, 3"),
        ({"method": "rlhf"}, "'rlhf'"),
        ({"optimizer": "lion"}, "'lion'"),
        ({"accelerators": 0}, "accelerators = 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        TrainingSetup(**change)


@given(st.sampled_from(catalogue_names()), SETUPS, st.sampled_from(["L40S", "H100", "B300"]))
def test_changes_are_offered_only_where_they_differ_from_what_is(name, setup, gpu):
    """Whatever is offered is not the setup itself; a later stage is never offered to the last one."""
    offered = changes_that_fit(ModelShape.from_catalogue(name), setup, accelerator(gpu))
    assert len(offered) == len(set(offered)) <= 5
    assert not (setup.zero_stage == 3 and any(text.startswith("ZeRO stage") for text in offered))
    assert not (setup.checkpointing and "checkpointing of activations" in offered)


def test_the_change_that_fits_does_fit():
    setup, h100 = TrainingSetup(accelerators=8, zero_stage=1), accelerator("H100")
    assert training_memory(LLAMA_8B, setup).total_bytes < h100.memory_bytes
    big = ModelShape.from_catalogue("llama-3.1-70b")
    assert changes_that_fit(big, replace(setup, zero_stage=3), h100) == ["32 accelerators", "LoRA"]
    enough = training_memory(big, replace(setup, zero_stage=3, accelerators=32)).total_bytes
    assert enough <= h100.memory_bytes < training_memory(big, replace(setup, zero_stage=3, accelerators=16)).total_bytes


def test_wrong_speeds_and_amounts_are_refused():
    with pytest.raises(InputError, match="mfu 0"):
        Speed(mfu=0)
    with pytest.raises(InputError, match="an MFU of 90% with 33% of FLOPs computed again"):
        training_run(LLAMA_8B, TrainingSetup(), accelerator("H100"), 1e9, speed=Speed(mfu=0.9))
    with pytest.raises(InputError, match="on -1 tokens"):
        training_run(LLAMA_8B, TrainingSetup(), accelerator("H100"), -1)
