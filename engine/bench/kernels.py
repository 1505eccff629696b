"""`engine bench kernels`: every operation of the engine timed alone, held against the machine and against others.

Each implementation first has to compute the right thing, on inputs drawn for it; then it is timed on as many input sets
as keep the cache from answering. A rival that fails says why and the rest goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from rich.table import Table

from engine.bench.kernel_sizes import Case, Do, Inputs
from engine.bench.machine import Machine
from engine.bench.timing import Timing, cache_bytes, input_sets, time_calls
from roofline.formats import format_name
from roofline.utilisation import WorkDone, utilisation

OURS = "engine"
# |out - reference| / |reference|: float32 sums in another order stay far below 1e-4 (tensor cores' tf32 near 3e-4);
# bf16 operands round by 2^-9 on average, a few times in attention: 2e-3 to 4e-3; fp16 by an eighth of that.
_LARGEST_ERROR = {torch.float32: 1e-3, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@dataclass(frozen=True, slots=True)
class Row:
    """One implementation of one case: what it took, or why there is no figure (`failure`).

    `fraction` is the least time that the measured ceilings allow over the time taken; `bytes_per_s` and `flop_per_s`
    count what the operation needs at least, not what an implementation moves.
    """

    operation: str
    size: str
    dtype: str
    implementation: str
    error: float | None = None
    seconds: float | None = None
    spread: float | None = None
    graph: bool | None = None
    bytes_per_s: float | None = None
    flop_per_s: float | None = None
    fraction: float | None = None
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure_kernels(
    cases: Sequence[Case], device: torch.device, machine: Machine, seed: int, on_case: Callable[[list[Row]], None]
) -> list[Row]:
    """All rows, the engine's first in each case; `on_case` is told of each case's as soon as they are there."""
    draws = torch.Generator(device).manual_seed(seed)
    rows: list[Row] = []
    for case in cases:
        found = _measure(case, device, machine, draws)
        rows += found
        on_case(found)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def figures(cases: Sequence[Case], rows: Sequence[Row]) -> dict[str, float]:
    """The engine's figures that targets ask for, by the targets' names."""
    ours = {(row.operation, row.size): row for row in rows if row.implementation == OURS and row.seconds is not None}
    return {
        case.target[0]: getattr(ours[case.operation, case.size], case.target[1])
        for case in cases
        if case.target and (case.operation, case.size) in ours
    }


def _measure(case: Case, device: torch.device, machine: Machine, draws: torch.Generator) -> list[Row]:
    """Results are checked before anything is timed: what works in place changes its inputs while it is."""
    implementations: dict[str, Do] = {OURS: case.ours, **case.rivals}
    sets = [case.make(device, draws) for _ in range(input_sets(case.memory_bytes, cache_bytes(device)))]
    rows = {
        name: _guarded(case, name, device, lambda name=name, do=do: _checked(case, name, do, sets[0]))
        for name, do in implementations.items()
    }
    for name, do in implementations.items():
        if rows[name].failure is None:
            checked = rows[name]
            rows[name] = _guarded(case, name, device, lambda do=do, row=checked: _timed(case, row, do, sets, machine))
    return list(rows.values())


def _guarded(case: Case, name: str, device: torch.device, make: Callable[[], Row]) -> Row:
    """The row, or why there is none: another library may fail in any way."""
    try:
        return make()
    except Exception as error:
        if device.type == "cuda":
            torch.cuda.synchronize()  # raises where the device itself is lost: then nothing more can be measured
        return _empty_row(case, name, failure=f"{type(error).__name__}: {_first_line(error)}")


def _checked(case: Case, name: str, do: Do, inputs: Inputs) -> Row:
    fresh = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in inputs.items()}
    with torch.inference_mode():
        error = _relative_error(case.outcome(fresh, do(fresh)), case.reference(inputs))
    if error <= _LARGEST_ERROR[case.dtype]:
        return _empty_row(case, name, error=error)
    told = error if error < float("inf") else None  # NaN and infinity are no JSON
    return _empty_row(case, name, error=told, failure=f"wrong result: relative error {error:.2g} against float32")


def _timed(case: Case, checked: Row, do: Do, sets: list[Inputs], machine: Machine) -> Row:
    timing: Timing = time_calls([lambda x=x: do(x) for x in sets], _device_of(sets))
    done = WorkDone(case.memory_bytes, case.flops, timing.seconds)
    return replace(
        checked,
        seconds=timing.seconds,
        spread=timing.spread,
        graph=timing.graph,
        bytes_per_s=case.memory_bytes / timing.seconds,
        flop_per_s=case.flops / timing.seconds,
        fraction=utilisation(done, machine.hardware(), _name(case.dtype)).fraction,
    )


def _device_of(sets: list[Inputs]) -> torch.device:
    """Where the inputs are."""
    return next(value.device for value in sets[0].values() if isinstance(value, torch.Tensor))


def _relative_error(out: torch.Tensor, expected: torch.Tensor) -> float:
    """|out - expected| / |expected|; NaN anywhere makes it NaN, which no bound lets through."""
    difference = out.float() - expected.float().reshape(out.shape)
    return float(difference.norm() / expected.float().norm())


def _empty_row(case: Case, name: str, error: float | None = None, failure: str | None = None) -> Row:
    return Row(case.operation, case.size, _name(case.dtype), name, error, failure=failure)


def _name(dtype: torch.dtype) -> str:
    return format_name(str(dtype).removeprefix("torch."))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def kernels_table(rows: Sequence[Row]) -> Table:
    """For the eye: microseconds, rates, and the fraction of what the machine allows."""
    table = Table(title="Kernels (median)", title_justify="left")
    for column in ("operation", "size", "by"):
        table.add_column(column)
    for column in ("us", "GB/s", "TFLOP/s", "of ceiling", "error"):
        table.add_column(column, justify="right")
    for row in rows:
        head = (row.operation, row.size, row.implementation)
        if row.seconds is None or row.bytes_per_s is None or row.flop_per_s is None or row.fraction is None:
            table.add_row(*head, "-", "-", "-", row.failure or "")
            continue
        marks = " (no graph)" if row.graph is False else ""
        rates = (f"{row.bytes_per_s / 1e9:,.1f}", f"{row.flop_per_s / 1e12:,.2f}", f"{row.fraction:.0%}")
        table.add_row(*head, f"{row.seconds * 1e6:,.1f}{marks}", *rates, f"{row.error:.1g}")
    return table
