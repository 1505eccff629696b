"""The engine on a GPU: the CPU's tokens, with and without graphs and launching ahead; memory and its errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.core.batch import Chunk
from engine.core.config import EngineConfig
from engine.core.request import Request
from engine.core.sampling_params import SamplingParams
from engine.execution.checkpoint import EMBEDDED_MODEL, open_checkpoint
from engine.execution.device_setup import DeviceOptions, device_program, gpu_runner
from engine.execution.linear import Linear
from engine.execution.model import LayerWeights, Llama, LlamaWeights
from engine.execution.packing import pack
from engine.execution.sequence import Sequence
from engine.execution.step_arrays import chunk_arrays
from engine.execution.weights import load_weights, random_weights
from engine.serving.llm import LLM
from roofline.errors import CapacityError, ModelError
from roofline.model_shape import ModelShape

SMALL = replace(ModelShape.from_catalogue("smollm2-135m"), name="small", num_layers=4, max_position=2048)
CONFIG = {"num_blocks": 200, "max_num_seqs": 20, "max_num_batched_tokens": 128, "max_model_len": 1024}
LENGTHS = (1, 5, 16, 17, 33, 64, 120, 200, 3, 77, 48, 250)
COUNT = 40


def moved(weights: LlamaWeights, dtype: torch.dtype, device: str) -> LlamaWeights:
    """The same weights in another format and place."""

    def at(tensor):
        return None if tensor is None else tensor.to(device, dtype)

    def linear(layer):
        return Linear(at(layer.weight), at(layer.bias))

    layers = tuple(
        LayerWeights(
            at(layer.attention_norm), linear(layer.qkv), linear(layer.output), at(layer.mlp_norm),
            linear(layer.gate_up), linear(layer.down), at(layer.q_norm), at(layer.k_norm),
        )
        for layer in weights.layers
    )  # fmt: skip
    embedding, tied = at(weights.embedding), weights.head.weight is weights.embedding
    head = Linear(embedding) if tied else linear(weights.head)
    return LlamaWeights(embedding, layers, at(weights.final_norm), head, weights.rope_divisors)


def prompts_of(shape: ModelShape) -> list[list[int]]:
    rng = np.random.default_rng(0)
    shared = rng.integers(3, shape.vocab_size, 48).tolist()
    return [
        (shared + rng.integers(3, shape.vocab_size, length).tolist())[-length if i % 2 else 0 :][:length]
        for i, length in enumerate(LENGTHS)
    ]


def answers(llm: LLM, params: SamplingParams | None = None) -> list[tuple[int, ...]]:
    params = params or SamplingParams(max_tokens=COUNT, ignore_eos=True)
    return [done.token_ids for done in llm.generate(prompts_of(llm.model.shape), params)]


def gpu_engine(model: Llama, *, use_graphs: bool = True, kv_dtype: torch.dtype | None = None, **settings) -> LLM:
    config = EngineConfig(**{**CONFIG, **settings})
    options = DeviceOptions(kv_dtype or model.weights.dtype, num_blocks=config.num_blocks, use_graphs=use_graphs)
    config, runner = gpu_runner(model, config, options)
    return LLM(model, None, config, runner=runner)


@pytest.fixture(scope="module")
def weights() -> LlamaWeights:
    """Wide enough that one token is clearly the likeliest."""
    return random_weights(SMALL, torch.float32, scale=0.1)


@pytest.fixture(scope="module")
def cpu(weights) -> Llama:
    return Llama(SMALL, weights)


@pytest.fixture(scope="module")
def gpu(weights, device) -> Llama:
    return Llama(SMALL, moved(weights, torch.float32, device))


@pytest.fixture(scope="module")
def expected(cpu) -> list[tuple[int, ...]]:
    return answers(LLM(cpu, None, EngineConfig(**CONFIG)))


VARIANTS = {
    "plain": {},
    "without graphs": {"use_graphs": False},
    "ahead": {"async_scheduling": True},
    "ahead, without graphs": {"async_scheduling": True, "use_graphs": False},
    "in small chunks": {"max_num_batched_tokens": 24, "async_scheduling": True},
    "preempting": {"num_blocks": 25},
    "preempting, ahead": {"num_blocks": 25, "async_scheduling": True, "enable_prefix_caching": False},
    "blocks of 64": {"block_size": 64, "async_scheduling": True},
    "one at a time": {"max_num_seqs": 1},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_tokens_are_the_cpus(gpu, expected, settings):
    llm = gpu_engine(gpu, **settings)
    assert answers(llm) == expected
    assert llm.scheduler.blocks.num_free == llm.config.usable_blocks and not llm.has_work
    if llm.config.enable_prefix_caching:
        assert answers(llm) == expected  # once more, from cached blocks


def test_tokens_of_the_embedded_model_are_the_cpus(device):
    try:
        checkpoint = open_checkpoint(EMBEDDED_MODEL)
    except (ModelError, ModuleNotFoundError) as error:
        pytest.skip(f"the embedded model is not here: {error}")
    weights = load_weights(checkpoint, torch.float32)
    reference = answers(LLM(Llama(checkpoint.shape, weights), None, EngineConfig(**CONFIG)))
    model = Llama(checkpoint.shape, moved(weights, torch.float32, device))
    assert answers(gpu_engine(model, async_scheduling=True)) == reference


@pytest.mark.parametrize("drawn", [{"temperature": 0.8}, {"temperature": 1.0, "top_k": 20, "top_p": 0.9}])
def test_draws_do_not_depend_on_how_a_step_is_run(gpu, drawn):
    params = SamplingParams(max_tokens=COUNT, ignore_eos=True, seed=7, **drawn)
    plain = answers(gpu_engine(gpu, use_graphs=False), params)
    for settings in ({}, {"async_scheduling": True}, {"num_blocks": 25, "async_scheduling": True}):
        assert answers(gpu_engine(gpu, **settings), params) == plain
    assert plain != answers(gpu_engine(gpu), replace(params, seed=8))


def test_ends_that_must_not_come_yet_do_not(gpu, expected):
    stops = tuple({token for tokens in expected for token in tokens[:3]})
    for ahead in (False, True):
        llm = gpu_engine(gpu, async_scheduling=ahead)
        done = llm.generate(prompts_of(SMALL), SamplingParams(max_tokens=COUNT, min_tokens=9, stop_token_ids=stops))
        assert all(not set(one.token_ids[:9]) & set(stops) for one in done)


def test_a_step_says_how_it_ran_and_how_long_the_device_took(gpu):
    llm = gpu_engine(gpu)
    for prompt in prompts_of(SMALL)[:3]:
        llm.add(prompt, SamplingParams(max_tokens=10, ignore_eos=True))
    kinds = {}
    while llm.has_work:
        result = llm.step()
        assert 0 < result.timings.device_s < 5
        kinds.setdefault(bool(result.batch.chunks), set()).add((result.kind.mode, result.kind.graph_batch))
    assert kinds == {True: {("eager", 0)}, False: {("graph", 4)}}


def last_logits(model: Llama, prompt: list[int], device: str, kv_dtype: torch.dtype) -> torch.Tensor:
    """Logits after a prompt, float32 on the CPU, through the device's program."""
    config = EngineConfig(**CONFIG)
    program = device_program(model, config, kv_dtype, config.num_blocks)
    request = Request("one", len(prompt), 1)
    request.block_ids = list(range(1, 2 + len(prompt) // config.block_size))
    chunk = Chunk(request, 0, len(prompt), samples=True)
    sequences = {request: Sequence(request, SamplingParams(seed=0), prompt, frozenset())}
    packed = pack(chunk_arrays((chunk,), sequences, 0))
    block = torch.zeros(packed.size, dtype=torch.int32)
    packed.write(block.numpy())
    return program.mixed_logits(0, packed.read(block.to(device)), len(prompt))[0].float().cpu()


def rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


def test_logits_in_bf16_are_as_exact_as_the_cpus(weights, cpu, device):
    prompt = prompts_of(SMALL)[-1]
    exact = last_logits(cpu, prompt, "cpu", torch.float32)
    half = {place: Llama(SMALL, moved(weights, torch.bfloat16, place)) for place in ("cpu", device)}
    errors = {place: rms(last_logits(half[place], prompt, place, torch.bfloat16) - exact) for place in half}
    # bfloat16 keeps 8 bits and each order of rounding errs differently: the CPU's own error is the yardstick.
    assert errors[device] <= 1.5 * errors["cpu"], f"{errors} on logits of {rms(exact)}"


def test_logits_in_fp32_are_the_cpus(cpu, gpu, device):
    prompt = prompts_of(SMALL)[-1]
    exact, got = (last_logits(model, prompt, place, torch.float32) for model, place in ((cpu, "cpu"), (gpu, device)))
    # Two float32 orders of summation: products of 2^-24 relative error in sums of up to 1536 terms over 4 layers.
    assert rms(got - exact) <= 1e-4 * rms(exact)


def test_a_cache_of_fp8_stays_close(weights, device):
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU does not convert to e4m3")
    prompt, errors = prompts_of(SMALL)[-1], {}
    half = {place: Llama(SMALL, moved(weights, torch.bfloat16, place)) for place in ("cpu", device)}
    for place, model in half.items():
        wide, narrow = (last_logits(model, prompt, place, kind) for kind in (torch.bfloat16, torch.float8_e4m3fn))
        errors[place] = rms(narrow - wide)
    # What e4m3's 4 bits cost depends on the weights: the CPU's own loss is the yardstick.
    assert 0 < errors[device] <= 1.25 * errors["cpu"], f"{errors} on logits of {rms(wide)}"
    assert all(len(tokens) == COUNT for tokens in answers(gpu_engine(half[device], kv_dtype=torch.float8_e4m3fn)))


def test_the_pool_fills_the_memory_that_is_allowed_and_no_more(device):
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    utilization = (total - free) / total + 0.2
    llm = LLM.load("qwen3-0.6b", load_format="dummy", device=device, gpu_memory_utilization=utilization)
    answers(llm)
    used = 1 - torch.cuda.mem_get_info()[0] / total
    assert utilization - 0.05 < used <= utilization + 0.01
    assert llm.config.async_scheduling and llm.kv_dtype is torch.bfloat16


def test_what_does_not_fit_says_what_to_change(gpu, device, request):
    with pytest.raises(CapacityError, match="lower num_blocks"):
        gpu_engine(gpu, num_blocks=10**9)
    with pytest.raises(CapacityError, match="raise gpu_memory_utilization"):
        LLM.load("qwen3-0.6b", load_format="dummy", device=device, gpu_memory_utilization=0.001)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2e9 / torch.cuda.mem_get_info()[1])
    request.addfinalizer(lambda: torch.cuda.set_per_process_memory_fraction(1.0))
    with pytest.raises(CapacityError, match=r"a step of 65536 tokens of small.*lower gpu_memory_utilization"):
        gpu_engine(gpu, max_num_batched_tokens=65536)


def test_weights_beyond_the_memory_are_named(device, tmp_path):
    wide = torch.cuda.mem_get_info()[1] // (2 * SMALL.hidden_size)  # one such matrix fills the GPU in bfloat16
    config = {
        "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": SMALL.hidden_size,
        "intermediate_size": wide, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 1000,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CapacityError, match=r"does not hold the weights of .*; use a smaller model or dtype"):
        LLM.load(str(tmp_path), load_format="dummy", device=device)
