"""Sizing a GPU's pool end to end, on a CPU whose memory figures are made up."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.core.config import EngineConfig
from engine.core.sampling_params import SamplingParams
from engine.execution.device import choose_device, defaults_of
from engine.execution.device_setup import DeviceOptions, gpu_runner, kinds_of_steps
from engine.execution.kv_pool import BlockKind
from engine.kernels import paged_prefill
from engine.kernels.paged_shape import PagedShape
from engine.serving.llm import LLM
from engine.serving.loading import LoadOptions, kv_torch_dtype, split_settings
from roofline.errors import CapacityError, InputError
from tests.engine.models import TINY, greedy_tokens

CONFIG = EngineConfig(2, block_size=4, max_num_seqs=4, max_num_batched_tokens=20, max_model_len=64)
BLOCK = BlockKind(TINY, 4, torch.float32)
TOTAL, FREE, STEP = 1_000_000, 700_000, 30_000


@pytest.fixture
def memory(monkeypatch):
    """A GPU of 1 MB of which 0.3 MB are in use, where every measured piece of work takes 0.03 MB."""
    figures = {
        "mem_get_info": lambda: (FREE, TOTAL),
        "memory_allocated": lambda: 1000,
        "max_memory_allocated": lambda: 1000 + STEP,
        "reset_peak_memory_stats": lambda: None,
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
    }
    for name, function in figures.items():
        monkeypatch.setattr(torch.cuda, name, function)


def options(**changed):
    return DeviceOptions(**{"kv_dtype": torch.float32, "use_graphs": False} | changed)


def test_the_pool_is_what_utilization_leaves(tiny, memory):
    config, runner = gpu_runner(tiny, CONFIG, options(utilization=0.8))
    assert config.num_blocks == (800_000 - 300_000 - STEP) // BLOCK.num_bytes
    assert len(runner.cache.keys[0]) == config.num_blocks


def test_an_engine_that_was_sized_answers(tiny, tiny_reference, memory):
    config, runner = gpu_runner(tiny, CONFIG, options())
    (done,) = LLM(tiny, None, config, runner=runner).generate([[5, 9, 33]], SamplingParams(max_tokens=20))
    assert list(done.token_ids) == greedy_tokens(tiny_reference, [5, 9, 33], 20)


def test_a_wanted_number_of_blocks_must_fit(tiny, memory):
    fitting = (FREE - STEP) // BLOCK.num_bytes
    assert gpu_runner(tiny, CONFIG, options(num_blocks=fitting))[0].num_blocks == fitting
    with pytest.raises(CapacityError, match="lower num_blocks"):
        gpu_runner(tiny, CONFIG, options(num_blocks=fitting + 1))


def test_no_room_names_the_settings(tiny, memory):
    with pytest.raises(CapacityError, match="raise gpu_memory_utilization"):
        gpu_runner(tiny, CONFIG, options(utilization=0.3))


def test_running_out_while_measuring_names_the_settings(tiny, memory, monkeypatch):
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", full)
    with pytest.raises(CapacityError, match="a step of 20 tokens of tiny; lower gpu_memory_utilization, max_num"):
        gpu_runner(tiny, CONFIG, options())


def attention_plans(lengths: list[int], group: int, head_dim: int) -> set[tuple]:
    """What attention is compiled for in a step of such chunks beside as many rows, on an H200."""
    kind = {"kv_heads": 8, "group": group, "head_dim": head_dim, "block_size": 16}
    shape = PagedShape(90, torch.bfloat16, torch.bfloat16, **kind)
    share = -(-sum(lengths) * shape.num_heads // 132)
    sequences = max(1 << (len(lengths) - 1).bit_length(), 32)
    return {("decode", sequences), ("prefill", sequences, paged_prefill.tile(shape, max(lengths) * group, share))}


@st.composite
def limits_and_step(draw):
    """An engine's limits, and the chunks of a step within them."""
    seqs, context = draw(st.integers(1, 700)), draw(st.sampled_from([64, 500, 8192]))
    budget = draw(st.integers(seqs, 9000))
    count = draw(st.integers(1, seqs))
    longest = draw(st.integers(1, min(context, budget - count + 1)))
    spare = (budget - count - longest + 1) // max(count - 1, 1)
    return seqs, context, budget, [longest, *[draw(st.integers(1, min(context, 1 + spare)))] * (count - 1)]


@given(limits_and_step(), st.sampled_from([1, 2, 3, 4, 7, 8]), st.sampled_from([64, 128, 256]))
def test_whatever_a_step_needs_was_compiled(drawn, group, head_dim):
    seqs, context, budget, step = drawn
    config = EngineConfig(2, max_num_seqs=seqs, max_num_batched_tokens=budget, max_model_len=context)
    kinds = kinds_of_steps(config, group)
    for lengths in kinds:
        assert len(lengths) <= seqs and sum(lengths) <= budget and 1 <= min(lengths) <= max(lengths) <= context
    assert attention_plans(step, group, head_dim) <= set().union(
        *(attention_plans(lengths, group, head_dim) for lengths in kinds)
    )


def test_kernels_of_the_real_cache_are_compiled_as_well(tiny, memory, monkeypatch):
    seen = set()
    monkeypatch.setattr(
        "engine.execution.device_setup.idle_step",
        lambda program, lengths, num_rows: seen.add((len(program.cache.keys[0]), num_rows, *lengths)),
    )
    config, _ = gpu_runner(tiny, CONFIG, options())
    sizes = {size for size, *_ in seen}
    assert sizes == {1, config.num_blocks}
    for lengths in kinds_of_steps(CONFIG, TINY.num_heads // TINY.num_kv_heads):
        assert {(size, len(lengths), *lengths) for size in sizes} <= seen


def test_devices_and_their_defaults():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="device is 'gpu'; choose auto, cpu or cuda"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(InputError, match="use --device cpu"):
            choose_device("cuda")
    gpu = defaults_of(torch.device("cuda"))
    assert (
        gpu["dtype"] == "bf16" and gpu["async_scheduling"] and not defaults_of(torch.device("cpu"))["async_scheduling"]
    )


def test_the_caches_format():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert kv_torch_dtype("auto", torch.bfloat16, gpu) is kv_torch_dtype("bf16", torch.bfloat16, gpu) is torch.bfloat16
    assert kv_torch_dtype("fp8", torch.bfloat16, gpu) is torch.float8_e4m3fn
    with pytest.raises(InputError, match="kv_cache_dtype fp8 needs a GPU"):
        kv_torch_dtype("fp8_e4m3", torch.float32, cpu)
    with pytest.raises(InputError, match="kv_cache_dtype is 'fp16'; use auto"):
        kv_torch_dtype("fp16", torch.bfloat16, gpu)


def test_settings_of_loading_and_of_the_scheduler_are_told_apart():
    loading, engine = split_settings({"dtype": "bf16", "block_size": 32, "enforce_eager": True})
    assert loading == LoadOptions(dtype="bf16", enforce_eager=True) and engine == {"block_size": 32}
    with pytest.raises(InputError, match="load_format is 'onnx'; choose auto, safetensors, gguf, dummy"):
        LLM.load(load_format="onnx")
