"""Each architecture, written to disk by transformers at a tiny random size, answers as transformers does."""

from dataclasses import replace

import pytest
import torch

from engine.core.sampling_params import SamplingParams
from engine.execution.checkpoint import open_checkpoint
from engine.execution.model import Llama
from engine.execution.weights import load_weights, random_weights
from engine.serving.llm import LLM
from roofline.errors import ModelError
from roofline.model_config import RopeScaling
from tests.engine.devices import device_engine
from tests.engine.execution.folders import write_gguf, write_tokenizer
from tests.engine.models import TINY, MemoryCheckpoint, greedy_tokens, reference

COUNT = 20
PROMPTS = [[(7 * i * i + 3 * i + seed) % 97 + 2 for i in range(length)] for seed, length in enumerate((3, 17, 41))]
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SIZES = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
ARCHITECTURES = {
    "Llama": {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": False},
    "Qwen2": {"rope_parameters": PLAIN_ROPE, "tie_word_embeddings": True},
    "Qwen3": {"rope_parameters": PLAIN_ROPE, "head_dim": 16, "tie_word_embeddings": True},
    "Mistral": {"rope_parameters": PLAIN_ROPE, "head_dim": 8, "sliding_window": 13},
}


def made_by_transformers(name: str):
    """A random model of transformers whose biases and norms are not the zeros and ones that they start as."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**SIZES, **ARCHITECTURES[name])
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "bias" in parameter_name or "norm" in parameter_name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(scope="module", params=ARCHITECTURES)
def saved(request, tmp_path_factory):
    """The model's folder, its weights in several files, and transformers' answers."""
    model = made_by_transformers(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return write_tokenizer(folder), [greedy_tokens(model, prompt, COUNT) for prompt in PROMPTS]


def answers(llm: LLM) -> list[list[int]]:
    done = llm.generate(PROMPTS, SamplingParams(max_tokens=COUNT, ignore_eos=True))
    return [list(completion.token_ids) for completion in done]


@pytest.mark.parametrize("budget", [64, 9])
def test_a_folder_answers_as_transformers_does(saved, budget):
    folder, expected = saved
    llm = LLM.load(
        str(folder),
        device="cpu",
        load_format="safetensors",
        num_blocks=40,
        max_num_seqs=4,
        max_num_batched_tokens=budget,
    )
    assert answers(llm) == expected
    assert len({tuple(tokens) for tokens in expected}) == len(PROMPTS) and len({*expected[0]}) > 2


def test_the_devices_runner_answers_alike(saved):
    folder, expected = saved
    checkpoint = open_checkpoint(str(folder))
    model = Llama(checkpoint.shape, load_weights(checkpoint, torch.float32))
    settings = {"max_model_len": 128, "max_num_seqs": 4, "max_num_batched_tokens": 30, "async_scheduling": True}
    assert answers(device_engine(model, **settings)) == expected


GGUF_SHAPES = {
    "llama": replace(TINY, max_position=128, tie_embeddings=False),
    "qwen2": replace(TINY, max_position=128, attention_bias=True),
    "qwen3": replace(TINY, max_position=128, qk_norm=True, head_dim=16),
}


@pytest.mark.parametrize("architecture", GGUF_SHAPES)
def test_a_gguf_file_answers_as_transformers_does(tmp_path, architecture):
    written = MemoryCheckpoint(GGUF_SHAPES[architecture])
    path = write_gguf(tmp_path / "model.gguf", written, architecture=architecture)
    llm = LLM.load(str(path), device="cpu", load_format="gguf", num_blocks=40, max_num_seqs=4)
    assert answers(llm) == [greedy_tokens(reference(written), prompt, COUNT) for prompt in PROMPTS]


def test_a_llama_3_gguf_file_brings_its_rotary_divisors(tmp_path):
    """The converter writes llama3's scaling as divisors of the frequencies, here by its own formula."""
    scaling = RopeScaling("llama3", 8.0, 32, 1.0, 4.0)
    written = MemoryCheckpoint(replace(TINY, max_position=128, rope_scaling=scaling))
    expected = [greedy_tokens(reference(written), prompt, COUNT) for prompt in PROMPTS]
    divisors = []
    for pair in range(TINY.head_dim // 2):
        frequency = TINY.rope_theta ** (-2 * pair / TINY.head_dim)
        wavelength = 2 * torch.pi / frequency
        smooth = min(max((32 / wavelength - 1.0) / (4.0 - 1.0), 0), 1)
        divisors.append(1 / ((1 - smooth) / 8.0 + smooth))
    assert divisors[0] == 1 and divisors[-1] == 8
    written.tensors["rope_freqs.weight"] = torch.tensor(divisors)
    llm = LLM.load(str(write_gguf(tmp_path / "llama3.gguf", written)), device="cpu", num_blocks=40, max_num_seqs=4)
    assert llm.model.shape.rope_scaling.kind == "tensor"
    assert answers(llm) == expected
    written.tensors["rope_freqs.weight"] = torch.ones(TINY.head_dim // 2)
    plain = LLM.load(str(write_gguf(tmp_path / "plain.gguf", written)), device="cpu", num_blocks=40, max_num_seqs=4)
    assert answers(plain) != expected


def test_windows_in_some_layers_are_refused():
    with pytest.raises(ModelError, match="sliding windows in some layers"):
        random_weights(replace(TINY, sliding_window=16, sliding_layers=1), torch.float32)


def test_a_model_of_the_catalogue_gets_random_weights_and_no_tokenizer():
    settings = {"num_blocks": 20, "max_num_seqs": 2, "max_model_len": 64, "dtype": "bf16"}
    llm = LLM.load("SmolLM2-135M", device="cpu", load_format="dummy", **settings)
    assert llm.tokenizer is None and llm.model.shape.num_layers == 30
    done = llm.generate([[5, 9, 2]], SamplingParams(max_tokens=2))
    assert len(done[0].token_ids) == 2
