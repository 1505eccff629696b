"""What this machine can do at best: memory bandwidth and matrix-product rate by number format, measured.

A CPU's ceilings are the best of several runs: whatever else the machine does only makes a run slower. A GPU's are
medians: nobody else uses it, and its clock falls under load.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from engine.bench.gpu import Gpu, copy_and_read_bytes_per_s, describe_gpu, gemm_flop_per_s
from engine.execution.weights import torch_dtype
from roofline.hardware import HardwareSpec

COPY_BYTES = 256 << 20  # far beyond a last-level cache
GEMM_SIZE = 1536  # operands leave the caches, one product takes well under a second on a laptop core
REPEATS = 7


@dataclass(frozen=True, slots=True)
class Machine:
    """This computer with measured ceilings, its GPU's where the model is served on one.

    `threads` are those that serve the model on the CPU, and that measured its ceilings. With a GPU, `name` and
    `memory_bytes` are the GPU's.
    """

    name: str
    cores: int
    threads: int
    memory_bytes: int
    copy_bytes_per_s: float  # read plus written
    read_bytes_per_s: float  # read only, as weights are; above a copy where writing reads the line first
    gemm_flop_per_s: dict[str, float]  # by number format
    gpu: Gpu | None = None

    @property
    def memory_bytes_per_s(self) -> float:
        """The memory ceiling: the better of copying and reading."""
        return max(self.copy_bytes_per_s, self.read_bytes_per_s)

    def hardware(self) -> HardwareSpec:
        """The machine as a roofline knows it: its measured ceilings as peaks."""
        measured = HardwareSpec.measured_cpu(
            self.memory_bytes_per_s, self.gemm_flop_per_s, self.memory_bytes, self.name
        )
        return measured if self.gpu is None else replace(measured, kind="gpu")

    def datasheet(self) -> HardwareSpec | None:
        """The vendor's peaks; None for a CPU, and for a GPU that the catalogue does not have."""
        return None if self.gpu is None else self.gpu.datasheet()

    def as_dict(self) -> dict[str, Any]:
        """The `hardware` of a trace's `meta.json`."""
        return {
            "name": self.name,
            "kind": "cpu" if self.gpu is None else "gpu",
            "count": 1,
            "cores": self.cores,
            "threads": self.threads,
            "memory_bytes": self.memory_bytes,
            "driver": None,
            "clocks": None,
            **({} if self.gpu is None else {"host": cpu_name(), **self.gpu.as_dict()}),
            "copy_bytes_per_s": self.copy_bytes_per_s,
            "read_bytes_per_s": self.read_bytes_per_s,
            "gemm_flop_per_s": self.gemm_flop_per_s,
        }


def measure_machine(dtypes: Sequence[str], device: torch.device | str = "cpu") -> Machine:
    """Measure the device that serves the model; about three seconds a format on two laptop cores, less on a GPU."""
    device = torch.device(device)
    return _measure_gpu(dtypes, device) if device.type == "cuda" else _measure_cpu(dtypes)


def _measure_gpu(dtypes: Sequence[str], device: torch.device) -> Machine:
    copy, read = copy_and_read_bytes_per_s(device)
    rates = {dtype: gemm_flop_per_s(device, dtype) for dtype in dtypes}
    gpu = describe_gpu(device)  # now, while its clocks are those of a busy device
    torch.cuda.empty_cache()
    return Machine(
        name=gpu.name,
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=gpu.memory_bytes,
        copy_bytes_per_s=copy,
        read_bytes_per_s=read,
        gemm_flop_per_s=rates,
        gpu=gpu,
    )


def _measure_cpu(dtypes: Sequence[str]) -> Machine:
    """With torch's present number of threads."""
    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    copy_s = best_seconds(lambda: target.copy_(source))
    read_s = best_seconds(lambda: torch.dot(source, target))
    return Machine(
        name=cpu_name(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        copy_bytes_per_s=2 * COPY_BYTES / copy_s,
        read_bytes_per_s=2 * COPY_BYTES / read_s,
        gemm_flop_per_s={dtype: _gemm_flop_per_s(torch_dtype(dtype)) for dtype in dtypes},
    )


def best_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Shortest wall time of `work`, after one run that does not count."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def cpu_name() -> str:
    """The processor's name as its maker spells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gemm_flop_per_s(dtype: torch.dtype) -> float:
    """2 n^3 over the time of one product; random values, since zeros can be cheaper."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty(GEMM_SIZE, GEMM_SIZE, dtype=dtype)
    with torch.inference_mode():
        return 2 * GEMM_SIZE**3 / best_seconds(lambda: torch.mm(a, b, out=out))
