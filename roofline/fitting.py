"""Whether a model fits, and the nearest changes that would make it fit."""

from dataclasses import dataclass, replace

from roofline.catalogue_data import shipped_rows
from roofline.errors import CapacityError, InputError
from roofline.formats import BYTES_PER_ELEMENT, bytes_per_element
from roofline.hardware import Efficiency, HardwareSpec
from roofline.memory import MemoryLayout, MemoryPlan, memory_plan
from roofline.model_shape import ModelShape
from roofline.parallelism import Parallelism, degrees

NARROWER_WEIGHTS = ("fp8", "int4-g128")  # those that engines serve well
NARROWER_CACHES = ("fp8",)
MAX_STAGES = 8
COMMON_NODE = 8  # accelerators that nearly every node has; tensor parallelism is tried within it first
DATA_DEGREES = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Remedy:
    """One change that makes a model fit: what it changes, in words, and the layout or hardware after it."""

    change: str
    text: str
    layout: MemoryLayout
    hardware: HardwareSpec


@dataclass(frozen=True, slots=True)
class _Question:
    """A model on an accelerator, to cache at least one sequence of so many tokens."""

    shape: ModelShape
    efficiency: Efficiency
    tokens: int

    def fits(self, hardware: HardwareSpec, layout: MemoryLayout) -> bool:
        try:
            plan = memory_plan(self.shape, hardware, self.efficiency, layout)
        except InputError:  # a degree that the model cannot be divided by
            return False
        return plan.max_sequences(self.tokens) >= 1


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
    # The null block is taken as well.
    blocks = plan.layer_blocks_of(tokens_per_sequence) / plan.num_layers + 1
    needed = plan.weight_bytes + plan.other_bytes + blocks * plan.block_size * plan.kv_bytes_per_token
    found = remedies(shape, hardware, efficiency, layout, tokens_per_sequence)
    told = f"it fits with {' or with '.join(remedy.text for remedy in found)}." if found else "nothing makes it fit."
    raise CapacityError(
        f"{shape.name} in {layout.weight_dtype} with {_in_words(layout.parallelism)} needs "
        f"{needed / 1e9:.1f} GB on each accelerator for one sequence of {tokens_per_sequence:,} tokens "
        f"({plan.weight_bytes / 1e9:.1f} GB of weights), and of {hardware.name}'s {hardware.memory_bytes / 1e9:.1f} GB "
        f"it may take {layout.memory_fraction * hardware.memory_bytes / 1e9:.1f} GB; {told}"
    )


def kv_blocks(
    shape: ModelShape, hardware: HardwareSpec, efficiency: Efficiency, layout: MemoryLayout | None = None
) -> int:
    """Cache blocks for the engine's `num_blocks`; raises `CapacityError` where not one token fits."""
    return fitting_plan(shape, hardware, efficiency, layout).kv_blocks


def remedies(
    shape: ModelShape, hardware: HardwareSpec, efficiency: Efficiency, layout: MemoryLayout, tokens_per_sequence: int
) -> list[Remedy]:
    """The smallest change of each kind that makes one sequence of so many tokens fit.

    Two at once where no single one does within a node's accelerators.

    Kinds: accelerators a replica, weight format, cache format, length, memory fraction, accelerator.
    """
    question = _Question(shape, efficiency, tokens_per_sequence)
    wider = _wider(shape, hardware, layout)
    single = [wider, _narrower(hardware, layout), _caches(hardware, layout), _whole(hardware, layout)]
    single.append(_larger(hardware, layout))
    found = [next((one for one in kind if question.fits(one.hardware, one.layout)), None) for kind in single]
    plan = memory_plan(shape, hardware, efficiency, layout)
    if (longest := plan.longest_sequence(tokens_per_sequence)) > 0:
        found.insert(3, Remedy("length", f"sequences of at most {longest:,} tokens", layout, hardware))
    answers = [one for one in found if one is not None]
    if any(one.layout.parallelism.accelerators <= COMMON_NODE for one in answers):
        return answers
    both = [
        next((one for one in wide if question.fits(one.hardware, one.layout)), None)
        for wide in zip(*(_narrower(hardware, one.layout, at=f" at {one.text}") for one in wider), strict=True)
    ]
    return [*(one for one in both if one is not None), *answers]


def _wider(shape: ModelShape, hardware: HardwareSpec, layout: MemoryLayout) -> list[Remedy]:
    """More accelerators a replica: tensor ranks in a node, ranks that share experts, stages, tensor ranks beyond."""
    if not hardware.link_bytes_per_s:
        return []
    now = layout.parallelism
    tensor = [replace(now, tensor=n) for n in degrees(shape) if n > now.tensor and now.expert == 1]
    in_a_node = [one for one in tensor if one.tensor <= COMMON_NODE]
    widest = in_a_node[-1] if in_a_node else now
    stages = [replace(widest, pipeline=n) for n in range(now.pipeline + 1, MAX_STAGES + 1)]
    experts = [
        Parallelism(now.tensor, now.pipeline, n, now.tensor * n) for n in DATA_DEGREES if shape.moe and n > now.data
    ]
    options = in_a_node + experts + stages + tensor[len(in_a_node) :]
    return [Remedy("parallelism", _in_words(one), replace(layout, parallelism=one), hardware) for one in options]


def _in_words(parallelism: Parallelism) -> str:
    if parallelism.accelerators == 1:
        return "one accelerator a replica"
    only_tensor = parallelism == Parallelism(parallelism.tensor)
    return f"tensor parallelism {parallelism.tensor}" if only_tensor else parallelism.text


def _narrower(hardware: HardwareSpec, layout: MemoryLayout, at: str = "") -> list[Remedy]:
    now = bytes_per_element(layout.weight_dtype)
    names = [name for name in NARROWER_WEIGHTS if BYTES_PER_ELEMENT[name] < now]
    return [Remedy("weights", f"{name} weights{at}", replace(layout, weight_dtype=name), hardware) for name in names]


def _caches(hardware: HardwareSpec, layout: MemoryLayout) -> list[Remedy]:
    now = bytes_per_element(layout.kv_dtype)
    names = [name for name in NARROWER_CACHES if BYTES_PER_ELEMENT[name] < now]
    return [Remedy("cache", f"an {name} KV cache", replace(layout, kv_dtype=name), hardware) for name in names]


def _whole(hardware: HardwareSpec, layout: MemoryLayout) -> list[Remedy]:
    """More of the memory, where the engine may not take nearly all of it."""
    fractions = [one for one in (0.92, 0.95, 0.97) if one > layout.memory_fraction]
    return [
        Remedy("fraction", f"a memory fraction of {one}", replace(layout, memory_fraction=one), hardware)
        for one in fractions
    ]


def _larger(hardware: HardwareSpec, layout: MemoryLayout) -> list[Remedy]:
    """Other accelerators of the catalogue, smallest first."""
    specs = sorted((HardwareSpec.from_row(row) for row in shipped_rows("accelerators")), key=lambda s: s.memory_bytes)
    larger = [spec for spec in specs if spec.memory_bytes > hardware.memory_bytes]
    return [Remedy("accelerator", f"{spec.name} ({spec.memory_bytes / 1e9:.0f} GB)", layout, spec) for spec in larger]
