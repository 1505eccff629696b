"""Sizing a GPU's pool end to end, on a CPU whose memory figures are made up."""

import pytest
import torch

from engine.core.config import EngineConfig
from engine.core.sampling_params import SamplingParams
from engine.execution.device import choose_device, defaults_of
from engine.execution.device_setup import DeviceOptions, gpu_runner, kinds_of_steps
from engine.execution.kv_pool import BlockKind
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


@pytest.mark.parametrize(("seqs", "budget", "context"), [(256, 8192, 4096), (4, 20, 64), (300, 512, 1), (1, 8, 64)])
def test_steps_of_every_kind_are_within_the_limits(seqs, budget, context):
    config = EngineConfig(2, max_num_seqs=seqs, max_num_batched_tokens=max(budget, seqs), max_model_len=context)
    kinds = kinds_of_steps(config)
    for num_tokens, num_rows, longest in kinds:
        assert 1 <= longest <= context and num_rows <= seqs and num_tokens == num_rows * longest
        assert num_tokens < config.max_num_batched_tokens + num_rows  # rounded up to whole chunks
    counts = {1 << max(rows - 1, 31).bit_length() for _, rows, _ in kinds}
    assert counts == {1 << max(rows - 1, 31).bit_length() for rows in range(1, seqs + 1)}


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
