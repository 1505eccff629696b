"""What an accelerator can do at best, and apart from it, how much of that is usually reached.

`HardwareSpec` holds datasheet figures (or those measured on this CPU) and nothing fitted; `Efficiency` holds priors
that stand in until calibration replaces them. The catalogue carries unit, source and date of every row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal, Self

from roofline.catalogue_data import Row, row_object, shipped_rows, user_rows
from roofline.errors import InputError
from roofline.formats import format_name

Kind = Literal["gpu", "cpu"]

# The format that arithmetic runs in for operands stored in another, best first: 4-bit weights are unpacked to bf16
# before they are multiplied, and hardware without fp8 or bf16 units widens.
_COMPUTES_IN = {
    "fp32": ("fp32",),
    "bf16": ("bf16", "fp32"),
    "fp16": ("fp16", "bf16", "fp32"),
    "fp8": ("fp8", "bf16", "fp32"),
    "int8": ("int8", "bf16", "fp32"),
    "int4": ("bf16", "fp32"),
    "int4-g128": ("bf16", "fp32"),
    "int4-g64": ("bf16", "fp32"),
    "int4-g32": ("bf16", "fp32"),
    "fp4": ("fp4", "bf16", "fp32"),
    "nvfp4": ("fp4", "bf16", "fp32"),
    "mxfp4": ("fp4", "bf16", "fp32"),
    "nf4": ("bf16", "fp32"),
    "nf4-double": ("bf16", "fp32"),
}


@dataclass(frozen=True, slots=True)
class HardwareSpec:
    """One accelerator: peaks only, dense rates only, bytes and FLOP/s as plain SI."""

    name: str
    kind: Kind
    memory_bytes: float
    memory_bytes_per_s: float
    dense_flops_per_s: Mapping[str, float] = field(hash=False)  # by number format
    link_bytes_per_s: float  # to its peers, per direction; 0 where there is no link
    tdp_w: float | None
    source: str
    date: str
    estimate: bool = False  # a figure of the row is disputed or derived; `note` says which
    link: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse figures that would divide by zero or mean nothing."""
        rates = {f"dense_flops_per_s[{dtype}]": rate for dtype, rate in self.dense_flops_per_s.items()}
        figures = {"memory_bytes": self.memory_bytes, "memory_bytes_per_s": self.memory_bytes_per_s, **rates}
        figures |= {} if self.tdp_w is None else {"tdp_w": self.tdp_w}
        figures |= {"link_bytes_per_s": self.link_bytes_per_s} if self.link_bytes_per_s != 0 else {}
        for name, value in figures.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise InputError(f"accelerator {self.name!r} has {name} = {value!r}; it must be a positive number.")
        if not rates:
            raise InputError(f"accelerator {self.name!r} has no dense_flops_per_s; give at least one format's rate.")
        if self.kind not in ("gpu", "cpu"):
            raise InputError(f"accelerator {self.name!r} has kind {self.kind!r}; it must be gpu or cpu.")

    @classmethod
    def measured_cpu(
        cls, copy_bytes_per_s: float, gemm_flop_per_s: Mapping[str, float], memory_bytes: float, name: str = "this CPU"
    ) -> Self:
        """This machine's processor, from figures measured on it.

        `copy_bytes_per_s` counts bytes read plus bytes written by a large copy; `gemm_flop_per_s` is the rate of a
        large matrix product by number format (`fp32`, `bf16`).
        """
        return cls(
            name=name,
            kind="cpu",
            memory_bytes=memory_bytes,
            memory_bytes_per_s=copy_bytes_per_s,
            dense_flops_per_s={format_name(dtype): rate for dtype, rate in gemm_flop_per_s.items()},
            link_bytes_per_s=0.0,
            tdp_w=None,
            source="measured on this machine: a large copy and a large matrix product",
            date=date.today().isoformat(),
        )

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """A catalogue row, shipped or the user's; raises `InputError` for a missing or unknown field."""
        told = {key: value for key, value in row.items() if key != "aliases"}
        rates = told.get("dense_flops_per_s", {})
        if not isinstance(rates, dict):
            raise InputError(
                f"accelerators row {row.get('name')!r} has dense_flops_per_s = {rates!r}; "
                'give the rate by number format, as {"bf16": 989e12}.'
            )
        if rates:
            told["dense_flops_per_s"] = {format_name(key): rate for key, rate in rates.items()}
        return row_object(cls, told, "accelerators")

    def compute_format(self, dtype: str) -> str:
        """The format that operands stored as `dtype` are multiplied in here.

        Raises `InputError` where the row has no rate for it.
        """
        for candidate in _COMPUTES_IN[format_name(dtype)]:
            if candidate in self.dense_flops_per_s:
                return candidate
        raise InputError(
            f"accelerator {self.name!r} has no rate for {dtype} operands; "
            f"it has {', '.join(self.dense_flops_per_s)}: choose one of those, or add the rate to its row."
        )

    def flops_per_s(self, dtype: str) -> float:
        """Dense FLOP/s on operands stored as `dtype`."""
        return self.dense_flops_per_s[self.compute_format(dtype)]

    def ridge_flop_per_byte(self, dtype: str = "bf16") -> float:
        """Arithmetic intensity above which the compute roof binds, in FLOP per byte of memory traffic."""
        return self.flops_per_s(dtype) / self.memory_bytes_per_s


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Fractions of the peaks that a good engine reaches, and the fixed costs beside them: priors, not measurements."""

    memory: float = 0.8  # of memory bandwidth
    compute: float = 0.4  # of dense FLOP/s (MFU) in large matrix products and prefill attention
    link: float = 0.7  # of link bandwidth in a large all-reduce
    kernel_s: float = 3e-6  # launch and drain of one kernel
    collective_s: float = 5e-6  # one synchronisation of the ranks: an all-reduce has one or two
    context_bytes: float = 0.58e9  # of device memory that the driver's context and libraries take
    graph_bytes: float = 1.0e9  # captured graphs
    communication_bytes: float = 0.41e9  # collectives' buffers, where there are several ranks
    attention_item_s: float = 23e-9  # start and end of a KV head of a sequence, or of 128 query rows, in attention
    tile_rows: int = 16  # a matrix product computes whole tiles of rows; kernels for few rows use the smallest
    attention_tile_rows: int = 128  # query rows of one work item
    host_launch_s: float = 20e-6  # of the host for one operator, where no graph launches them all

    def __post_init__(self) -> None:
        """Refuse fractions outside (0, 1] and negative costs."""
        for name in ("memory", "compute", "link"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"efficiency {name} is {getattr(self, name)}; it must be above 0 and at most 1.")
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"efficiency {name} is {getattr(self, name)}; it must not be negative.")
        for name in ("tile_rows", "attention_tile_rows"):
            if getattr(self, name) < 1:
                raise InputError(f"efficiency {name} is {getattr(self, name)}; it must be at least 1.")

    @classmethod
    def ideal(cls) -> Self:
        """Every peak reached in full and no fixed cost: the roof itself."""
        return cls(
            memory=1.0, compute=1.0, link=1.0, kernel_s=0.0, collective_s=0.0, context_bytes=0.0, graph_bytes=0.0,
            communication_bytes=0.0, attention_item_s=0.0, tile_rows=1, attention_tile_rows=1, host_launch_s=0.0,
        )  # fmt: skip

    @classmethod
    def prior(cls, hardware: HardwareSpec) -> Self:
        """What to assume on `hardware` before anything is measured.

        A CPU's peaks are measured already, so the fractions are higher; its "kernel" is an eager operator call.
        """
        if hardware.kind == "cpu":
            return cls(
                memory=0.8, compute=0.7, kernel_s=5e-6, context_bytes=0.3e9, graph_bytes=0.0, communication_bytes=0.0,
                attention_item_s=0.0, tile_rows=1, attention_tile_rows=1,
            )  # fmt: skip
        return cls(compute=_PREFILL_MFU.get(hardware.name, 0.4))


_NOT_NEGATIVE = (
    "kernel_s", "collective_s", "context_bytes", "graph_bytes", "communication_bytes", "attention_item_s",
    "host_launch_s",
)  # fmt: skip

# Published prefill MFU of good engines; the H200 has the H100's compute. Others take the field's default of 0.4.
_PREFILL_MFU = {"H100": 0.45, "H200": 0.45, "A100": 0.38, "L40S": 0.32}


def accelerator(name: str, file: Path | None = None) -> HardwareSpec:
    """The accelerator of that name or alias, upper and lower case alike; rows of the user's `file` come first.

    Raises `InputError` with the names there are.
    """
    rows = [*(user_rows(file, "accelerators") if file else ()), *shipped_rows("accelerators")]
    for row in rows:
        if name.lower() in (str(known).lower() for known in (row.get("name"), *row.get("aliases", ()))):
            return HardwareSpec.from_row(row)
    known = ", ".join(str(row.get("name")) for row in rows)
    raise InputError(f"accelerator {name!r} is not known; known are {known}. Others come in a file of such rows.")
