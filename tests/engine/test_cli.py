"""`engine generate` as a user meets it: a process of its own."""

import subprocess
import sys

import pytest

from tests.engine.execution.folders import write_folder
from tests.engine.models import TINY, MemoryCheckpoint


def engine(*arguments, text=""):
    command = [sys.executable, "-m", "engine.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, input=text, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_folder(tmp_path_factory.mktemp("tiny"), MemoryCheckpoint(TINY)))


@pytest.mark.model
def test_the_embedded_model_answers():
    done = engine("generate", "What is the capital of France?", "--threads", "1")
    assert (done.returncode, done.stdout) == (0, "The capital of France is Paris.\n")
    assert "8 tokens" in done.stderr and "tokens/s" in done.stderr and "ended by stop" in done.stderr


def test_a_prompt_from_standard_input_and_a_seed(folder):
    options = ("--model", folder, "--max-tokens", "9", "--temperature", "1.5", "--raw", "--seed", "3")
    piped, given = engine("generate", "-", *options, text="abc"), engine("generate", "abc", *options)
    assert piped.returncode == 0 and piped.stdout == given.stdout != "\n"


def test_a_system_prompt_changes_the_answer(folder):
    plain = engine("generate", "abc", "--model", folder, "--max-tokens", "9")
    told = engine("generate", "abc", "--model", folder, "--max-tokens", "9", "--system", "be brief")
    assert plain.returncode == told.returncode == 0 and plain.stdout != told.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["abc", "--max-tokens", "0"], "max_tokens is 0"),
        (["abc", "--model", "nowhere"], "model 'nowhere' is neither"),
        (["", "--raw"], "the prompt is empty"),
        (["abc", "--raw", "--system", "x"], "--system belongs to the chat format"),
        (["abc", "--stop", ""], "stop is"),
        (["abc", "--threads", "100000"], "threads is 100000; it must be from 1 to 1024"),
        (["abc", "--device", "gpu"], "device is 'gpu'; choose auto, cpu or cuda"),
        (["abc", "--device", "cpu", "--kv-cache-dtype", "fp8"], "kv_cache_dtype fp8 needs a GPU"),
        (["abc", "--gpu-memory-utilization", "90"], "gpu_memory_utilization is 90.0; it must be above 0 and at most 1"),
        (["abc", "--load-format", "onnx"], "load_format is 'onnx'; choose auto, safetensors, gguf, dummy"),
        (["abc", "--load-format", "dummy", "--model", "nowhere"], "model 'nowhere' is not in the catalogue"),
        ([b"ab\xff"], "the prompt is not UTF-8 text (invalid start byte at byte 2)"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, said):
    done = engine("generate", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_prompt_beyond_the_context_is_one_sentence(folder):
    done = engine("generate", "-", "--model", folder, text="abcd " * 200)
    assert done.returncode == 2 and "but the context is 256" in done.stderr and "Traceback" not in done.stderr


def test_help_names_every_option():
    done = engine("generate", "--help")
    assert done.returncode == 0
    for option in (
        "--model",
        "--max-tokens",
        "--temperature",
        "--top-k",
        "--top-p",
        "--seed",
        "--system",
        "--raw",
        "--device",
    ):
        assert option in done.stdout
