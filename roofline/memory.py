"""What fits: weights, cache and the rest on one accelerator, and how many sequences that leaves room for."""

from dataclasses import dataclass

from roofline.errors import CapacityError
from roofline.formats import BYTES_PER_ELEMENT, bytes_per_element
from roofline.hardware import Efficiency, HardwareSpec
from roofline.model_shape import ModelShape
from roofline.parallelism import Parallelism, RankShare, degrees


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """How a replica stores a model: formats, degree and the size of a cache block."""

    weight_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    tensor_parallel: int = 1
    block_size: int = 16  # tokens


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes on each accelerator of a replica; they sum to its memory, and `kv_bytes` is below zero where it is short.

    Every rank caches its own heads of every token, so blocks and sequences count for the replica, not for one rank.
    """

    memory_bytes: float
    weight_bytes: float
    other_bytes: float  # context, activations, graphs and communication buffers
    kv_bytes_per_token: float  # on one rank
    block_size: int

    @property
    def kv_bytes(self) -> float:
        """What is left for the cache."""
        return self.memory_bytes - self.weight_bytes - self.other_bytes

    @property
    def kv_blocks(self) -> int:
        """Whole cache blocks that fit, the engine's reserved null block among them."""
        return max(0, int(self.kv_bytes // (self.kv_bytes_per_token * self.block_size)))

    @property
    def kv_tokens(self) -> int:
        """Tokens that requests can cache together: one block is the null block."""
        return max(0, self.kv_blocks - 1) * self.block_size

    def max_sequences(self, tokens_per_sequence: int) -> int:
        """Sequences of that many tokens, prompt and answer, that are cached at once, in whole blocks each."""
        blocks = -(-max(1, tokens_per_sequence) // self.block_size)
        return max(0, self.kv_blocks - 1) // blocks


def memory_plan(
    shape: ModelShape, hardware: HardwareSpec, efficiency: Efficiency, layout: MemoryLayout | None = None
) -> MemoryPlan:
    """Divide an accelerator's memory, fitting or not; `efficiency` says what else takes some."""
    layout = layout or MemoryLayout()
    share = RankShare(shape, Parallelism(layout.tensor_parallel))
    return MemoryPlan(
        memory_bytes=hardware.memory_bytes,
        weight_bytes=share.weight_bytes(layout.weight_dtype),
        other_bytes=efficiency.other_memory_bytes,
        kv_bytes_per_token=share.kv_bytes_per_token(layout.kv_dtype),
        block_size=layout.block_size,
    )


def fitting_plan(
    shape: ModelShape,
    hardware: HardwareSpec,
    efficiency: Efficiency,
    layout: MemoryLayout | None = None,
    tokens_per_sequence: int = 1,
) -> MemoryPlan:
    """The memory plan, in which at least one sequence of that many tokens fits.

    Raises `CapacityError` naming the nearest changes that would make it fit.
    """
    layout = layout or MemoryLayout()
    plan = memory_plan(shape, hardware, efficiency, layout)
    if plan.max_sequences(tokens_per_sequence) >= 1:
        return plan
    needed = plan.weight_bytes + plan.other_bytes + tokens_per_sequence * plan.kv_bytes_per_token
    remedies = [
        change
        for change, other in _alternatives(shape, hardware, layout)
        if memory_plan(shape, hardware, efficiency, other).max_sequences(tokens_per_sequence) >= 1
    ]
    raise CapacityError(
        f"{shape.name} in {layout.weight_dtype} at tensor parallelism {layout.tensor_parallel} needs "
        f"{needed / 1e9:.1f} GB on each accelerator for one sequence of {tokens_per_sequence} tokens "
        f"({plan.weight_bytes / 1e9:.1f} GB of weights), and {hardware.name} has {hardware.memory_bytes / 1e9:.1f} GB; "
        + (f"it fits with {' or with '.join(_nearest(remedies))}." if remedies else "no degree or format makes it fit.")
    )


def kv_blocks(
    shape: ModelShape, hardware: HardwareSpec, efficiency: Efficiency, layout: MemoryLayout | None = None
) -> int:
    """Cache blocks for the engine's `num_blocks`; raises `CapacityError` where not one token fits."""
    return fitting_plan(shape, hardware, efficiency, layout).kv_blocks


def _alternatives(shape: ModelShape, hardware: HardwareSpec, layout: MemoryLayout) -> list[tuple[str, MemoryLayout]]:
    """Layouts that need less, nearest first: a higher degree, then narrower weights, then both."""
    higher = [n for n in degrees(shape) if n > layout.tensor_parallel] if hardware.link_bytes_per_s else []
    now = bytes_per_element(layout.weight_dtype)
    narrower = [name for name in ("fp8", "int4") if BYTES_PER_ELEMENT[name] < now]
    return [
        *((f"tensor parallelism {n}", _with(layout, layout.weight_dtype, n)) for n in higher),
        *((f"{name} weights", _with(layout, name, layout.tensor_parallel)) for name in narrower),
        *((f"{name} weights at tensor parallelism {n}", _with(layout, name, n)) for name in narrower for n in higher),
    ]


def _with(layout: MemoryLayout, weight_dtype: str, degree: int) -> MemoryLayout:
    return MemoryLayout(weight_dtype, layout.kv_dtype, degree, layout.block_size)


def _nearest(remedies: list[str]) -> list[str]:
    """The first remedy of each kind: of a degree alone and of a format alone, or else of both together."""
    by_degree = [text for text in remedies if text.startswith("tensor")]
    by_format = [text for text in remedies if text.endswith("weights")]
    return [*by_degree[:1], *by_format[:1]] or remedies[:1]
