"""An NVIDIA GPU as a machine to measure: what it is, how it is clocked, and its two ceilings."""

import subprocess
from dataclasses import dataclass
from typing import Any

import torch

from engine.bench.timing import time_calls
from engine.execution.weights import torch_dtype
from roofline.errors import InputError
from roofline.hardware import HardwareSpec, accelerator

COPY_BYTES = 1 << 30  # many times the L2 cache, and little beside a KV pool that has the rest of the memory
GEMM_SIZE = 8192
_BUDGET_S = 0.5
_QUERIES = {
    "driver": "driver_version",
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "max_sm_mhz": "clocks.max.sm",
    "max_memory_mhz": "clocks.max.mem",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a GPU says of itself; `clocks` are those after the matrix products, None where nvidia-smi is silent."""

    device_name: str
    memory_bytes: int
    multiprocessors: int
    cache_bytes: int
    compute_capability: str
    driver: str | None
    clocks: dict[str, float] | None

    @property
    def name(self) -> str:
        """The catalogue's name of it, so that profiles and scenarios speak of the same thing; else its own."""
        known = self.datasheet()
        return self.device_name if known is None else known.name

    def datasheet(self) -> HardwareSpec | None:
        """The catalogue's row; None for a GPU that is not in it."""
        try:
            return accelerator(self.device_name)
        except InputError:
            return None

    def as_dict(self) -> dict[str, Any]:
        """Its part of a trace's `hardware`."""
        return {
            "device_name": self.device_name,
            "memory_bytes": self.memory_bytes,
            "multiprocessors": self.multiprocessors,
            "cache_bytes": self.cache_bytes,
            "compute_capability": self.compute_capability,
            "driver": self.driver,
            "clocks": self.clocks,
        }


def describe_gpu(device: torch.device) -> Gpu:
    """The GPU as it stands now."""
    properties = torch.cuda.get_device_properties(device)
    told = _nvidia_smi(str(getattr(properties, "uuid", "")))
    driver = told.pop("driver", None)
    return Gpu(
        device_name=properties.name,
        memory_bytes=int(properties.total_memory),
        multiprocessors=int(properties.multi_processor_count),
        cache_bytes=int(properties.L2_cache_size),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=driver,
        clocks={name: value for name, text in told.items() if (value := _number(text)) is not None} or None,
    )


def copy_and_read_bytes_per_s(device: torch.device) -> tuple[float, float]:
    """Bytes read plus written a second by a large copy, and bytes read a second by a large sum; random contents."""
    size = min(COPY_BYTES, torch.cuda.mem_get_info(device)[0] // 8)
    source = torch.empty(size // 4, device=device).uniform_()
    target = torch.empty_like(source)
    copy = time_calls([lambda: target.copy_(source)], device, _BUDGET_S)
    read = time_calls([source.sum, target.sum], device, _BUDGET_S)
    moved = source.nbytes
    return 2 * moved / copy.seconds, moved / read.seconds


def gemm_flop_per_s(device: torch.device, dtype: str) -> float:
    """2 n^3 over the median time of one product; random values, since zeros draw less power and run faster."""
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, generator=generator, device=device) for _ in range(2))
    a, b = a.to(torch_dtype(dtype)), b.to(torch_dtype(dtype))
    out = torch.empty_like(a)
    return 2 * GEMM_SIZE**3 / time_calls([lambda: torch.mm(a, b, out=out)], device, _BUDGET_S).seconds


def _nvidia_smi(uuid: str) -> dict[str, str]:
    """Answers to `_QUERIES` by name; empty where the tool is missing or refuses."""
    which = [f"--id=GPU-{uuid.removeprefix('GPU-')}"] if uuid else []
    command = ["nvidia-smi", *which, f"--query-gpu={','.join(_QUERIES.values())}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = done.stdout.splitlines()
    answers = [part.strip() for part in lines[0].split(",")] if lines else []
    return dict(zip(_QUERIES, answers, strict=False))


def _number(text: str) -> float | None:
    """A figure as nvidia-smi prints it; None for `[N/A]`."""
    try:
        return float(text)
    except ValueError:
        return None
