"""Every shipped kernel configuration compiled for GPUs that are not there, and what its machine code needs.

`python -m engine.kernels.ahead_of_time` prints registers, shared memory and complaints of each configuration for each
architecture; it needs triton and no GPU, and must not run under Triton's interpreter. Exit code 1 if anything is amiss.
"""

import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from engine.kernels import paged_decode, paged_prefill, rms_norm, rope, sampling_kernels, silu_mul
from engine.kernels.kernel_config import ALIGNMENT_BYTES, KernelConfig
from roofline import console
from roofline.errors import InputError

# Shared memory that one program may take: CUDA C++ programming guide, table of compute capabilities (2026).
SHARED_LIMIT_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one program of a compiled configuration takes: registers a thread, bytes; opcodes: how often each stands."""

    name: str
    architecture: int
    registers: int
    local_bytes: int
    shared_bytes: int
    opcodes: dict[str, int]
    complaints: tuple[str, ...]


def shipped() -> tuple[KernelConfig, ...]:
    """Every configuration that a launcher may choose for the models and settings that are supported."""
    modules = (paged_decode, paged_prefill, rms_norm, rope, sampling_kernels, silu_mul)
    return tuple(config for module in modules for config in module.configs())


def compiled(config: KernelConfig, architecture: int) -> Resources:
    """Compile one configuration for one architecture and read what its machine code says."""
    kernel = _compile(config, architecture)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        usage = _tool("cuobjdump", "-res-usage", str(cubin))
        opcodes = _opcodes(_tool("nvdisasm", "-c", str(cubin)))
    stack, local = (int(re.findall(rf"\b{word}:(\d+)", usage)[0]) for word in ("STACK", "LOCAL"))
    found = Resources(
        name=config.name,
        architecture=architecture,
        registers=int(re.findall(r"\bREG:(\d+)", usage)[0]),
        local_bytes=stack + local,
        shared_bytes=kernel.metadata.shared,
        opcodes=dict(opcodes),
        complaints=(),
    )
    return replace(found, complaints=tuple(_complaints(config, found)))


def _compile(config: KernelConfig, architecture: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = config.kernel.arg_names
    unlike = set(names) ^ {*config.types, *config.absent, *config.choices}
    assert not unlike, f"{config.name}: {unlike} stand in the kernel alone or in the configuration alone"
    aligned = {name for name, kind in config.types.items() if kind.startswith("*")} | config.divisible
    source = ASTSource(
        fn=config.kernel,
        signature={name: config.types.get(name, "constexpr") for name in names},
        constexprs=dict.fromkeys(config.absent) | config.choices,
        attrs={(names.index(name),): [["tt.divisibility", ALIGNMENT_BYTES]] for name in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=config.options)


def _tool(name: str, *arguments: str) -> str:
    """Output of one of the CUDA tools that come with triton."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


def _opcodes(sass: str) -> Counter[str]:
    """How often each instruction stands in a listing with rows like `/*0090*/ @P0 LDG.E.128 R4, desc[UR4][R2.64] ;`."""
    return Counter(re.findall(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", sass))


def _complaints(config: KernelConfig, found: Resources) -> Iterator[str]:
    spills = sum(count for opcode, count in found.opcodes.items() if opcode.split(".")[0] in ("LDL", "STL"))
    if found.local_bytes or spills:
        yield f"{found.local_bytes} bytes of local memory, {spills} accesses to it: registers spill"
    limit = SHARED_LIMIT_BYTES[found.architecture]
    if found.shared_bytes > limit:
        yield f"{found.shared_bytes} bytes of shared memory, and the architecture has {limit}"
    for pattern in config.instructions(found.architecture):
        if not any(re.match(pattern, opcode) for opcode in found.opcodes):
            yield f"no instruction {pattern}"


def _compile_nth(index: int, architecture: int) -> Resources:
    return compiled(shipped()[index], architecture)


def compile_all() -> list[Resources]:
    """Every shipped configuration for every architecture it is for, on all cores.

    Raises `InputError` under Triton's interpreter, which replaces the compiler.
    """
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise InputError(
            f"TRITON_INTERPRET is {os.environ['TRITON_INTERPRET']!r}, which replaces the compiler by the interpreter; "
            "unset it to compile."
        )
    jobs = [(index, arch) for index, config in enumerate(shipped()) for arch in config.architectures]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(_compile_nth, *job) for job in jobs]
        with console.progress("kernels") as bar:
            return [future.result() for future in bar.track(pending, description="Compiling")]


def _as_table(results: list[Resources]) -> Table:
    """One row a configuration; where architectures differ, its figures stand in the order of the title."""
    shown = Table("kernel", title=f"Compiled for sm_{', '.join(map(str, SHARED_LIMIT_BYTES))}", title_justify="left")
    for column in ("registers", "shared, bytes", "complaints"):
        shown.add_column(column)
    for name, group in groupby(results, key=lambda found: found.name):
        rows = list(group)
        registers, shared = (" ".join(str(getattr(row, f)) for row in rows) for f in ("registers", "shared_bytes"))
        shown.add_row(
            name, registers, shared, "; ".join(f"sm_{r.architecture}: {c}" for r in rows for c in r.complaints)
        )
    return shown


@app.command()
def table(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Compile every kernel configuration for sm_80, sm_90 and sm_100; list registers and shared memory."""
    results = compile_all()
    if as_json:
        console.print_json({"kernels": [asdict(found) for found in results]})
    else:
        console.out.print(_as_table(results))
    if any(found.complaints for found in results):
        raise typer.Exit(1)


def main() -> None:
    """Run the command."""
    console.run(app)


if __name__ == "__main__":
    main()
