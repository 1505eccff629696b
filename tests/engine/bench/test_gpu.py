"""What is read of a GPU, on a machine that has none: a stand-in for nvidia-smi and for torch's properties."""

from types import SimpleNamespace

import pytest
import torch

from engine.bench.gpu import describe_gpu

PROPERTIES = SimpleNamespace(
    name="NVIDIA H200", total_memory=150_754_820_096, multi_processor_count=132, L2_cache_size=62_914_560, major=9,
    minor=0, uuid="01234567-89ab",
)  # fmt: skip


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A function that makes `nvidia-smi` print a line, and its arguments into a file."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: PROPERTIES)

    def make(line: str, code: int = 0):
        path = tmp_path / "nvidia-smi"
        path.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "{line}"\nexit {code}\n')
        path.chmod(0o755)
        return tmp_path / "asked"

    return make


def test_clocks_and_driver_come_from_the_tool(tool):
    asked = tool("580.159.03, 1980, 3201, 1980, 3201, 700.00, [N/A]")
    gpu = describe_gpu(torch.device("cuda"))
    assert "--id=GPU-01234567-89ab" in asked.read_text()
    assert gpu.driver == "580.159.03" and gpu.name == "H200" and gpu.compute_capability == "9.0"
    assert gpu.clocks == {
        "sm_mhz": 1980, "memory_mhz": 3201, "max_sm_mhz": 1980, "max_memory_mhz": 3201, "power_limit_w": 700
    }  # fmt: skip


def test_what_the_tool_does_not_say_is_null(tool, monkeypatch):
    tool("No devices were found", code=6)
    gpu = describe_gpu(torch.device("cuda"))
    assert (gpu.driver, gpu.clocks) == (None, None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert describe_gpu(torch.device("cuda")) == gpu
