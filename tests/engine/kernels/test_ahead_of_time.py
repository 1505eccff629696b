"""Every shipped kernel configuration, compiled for GPUs that are not here: it fits, spills nothing, loads wide."""

import json
import os
import subprocess
import sys

import pytest

from engine.kernels.ahead_of_time import SHARED_LIMIT_BYTES, compile_all, shipped
from engine.kernels.kernel_config import ARCHITECTURES
from engine.kernels.triton_language import HAS_TRITON
from roofline.errors import InputError
from tests.source_tree import ROOT

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")


@pytest.fixture(scope="module")
def resources():
    """What the command says of each configuration and architecture; it runs where no interpreter stands in."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "engine.kernels.ahead_of_time", "--json"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr[-4000:]
    return {(found["name"], found["architecture"]): found for found in json.loads(done.stdout)["kernels"]}


@pytest.mark.parametrize("config", shipped(), ids=lambda config: config.name)
def test_nothing_is_amiss(resources, config):
    for architecture in config.architectures:
        found = resources[config.name, architecture]
        assert not found["complaints"], f"sm_{architecture}: {found['complaints']}"
        # Laws beside the command's own verdict: what it read is of a real program.
        assert 16 <= found["registers"] <= 255
        assert found["local_bytes"] == 0 and found["shared_bytes"] <= SHARED_LIMIT_BYTES[architecture]
        assert found["opcodes"]["EXIT"] and any(opcode.startswith("STG") for opcode in found["opcodes"])


def test_names_are_unique():
    names = [config.name for config in shipped()]
    assert len(names) == len(set(names))


def test_every_architecture_is_covered(resources):
    assert {architecture for _, architecture in resources} == set(ARCHITECTURES)


def test_the_interpreter_cannot_compile(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(InputError, match="TRITON_INTERPRET is '1'"):
        compile_all()
