"""`roofline memory`: what one accelerator holds, how many sequences run at once, and what would make it fit."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from roofline import console
from roofline.errors import InputError
from roofline.fitting import fitting_plan
from roofline.formats import activation_format
from roofline.hardware import Efficiency, HardwareSpec
from roofline.length_mix import RequestLength, held_blocks, parse_lengths, read_lengths
from roofline.memory import MemoryLayout, MemoryPlan
from roofline.model_shape import ModelShape
from roofline.screen.tables import columns, gigabytes, pairs


@dataclass(frozen=True, slots=True)
class Lengths:
    """What the requests are like: one length, or a mix."""

    context: int
    mix: str | None = None  # as a user writes it, or a file
    confidence: float = 0.99

    def requests(self) -> list[RequestLength] | None:
        """The mix; None where only one length was given."""
        if self.mix is None:
            return None
        path = Path(self.mix)
        return read_lengths(path) if path.suffix in (".csv", ".parquet") else parse_lengths(self.mix)


@dataclass(frozen=True, slots=True)
class Output:
    """Where the answer goes: JSON or tables on stdout, and a figure where a file is named."""

    as_json: bool = False
    figure: Path | None = None


def show_memory(
    shape: ModelShape, hardware: HardwareSpec, layout: MemoryLayout, lengths: Lengths, output: Output
) -> None:
    """Print the plan; raises `CapacityError` where not one request fits."""
    requests = lengths.requests()
    longest = (
        max((one.prompt_tokens + one.output_tokens for one in requests), default=0) if requests else lengths.context
    )
    if longest > shape.max_position:
        raise InputError(
            f"sequences of {longest:,} tokens are longer than the {shape.max_position:,} that {shape.name} reads; "
            "ask for shorter ones."
        )
    plan = fitting_plan(shape, hardware, Efficiency.prior(hardware), layout, longest)
    at_once = _at_once(plan, requests, lengths, longest)
    if output.figure is not None:
        from roofline import figures

        named = f"{shape.name} on {hardware.name}"
        figures.write(output.figure, named, [figures.memory_stack({named: plan.stack()})])
    if output.as_json:
        console.print_json(_json(shape, hardware, layout, plan, longest) | {"mix": at_once})
        return
    _print(shape, hardware, layout, plan)
    console.out.print(pairs("room for requests", _room(layout, plan, longest, at_once)))


def _at_once(
    plan: MemoryPlan, requests: Sequence[RequestLength] | None, lengths: Lengths, longest: int
) -> dict[str, Any] | None:
    """How many of a mix run at once: each at its largest, and each where it is at a random moment."""
    if requests is None:
        return None
    held = held_blocks(requests, plan.layer_blocks_of)
    tokens_per_layer_block = plan.block_size / plan.num_layers
    return {
        "confidence": lengths.confidence,
        "max_sequences": held.concurrent(plan.layer_blocks, lengths.confidence),
        "max_sequences_all_longest": plan.max_sequences(longest),
        "mean_held_tokens": held.mean * tokens_per_layer_block,
        "lengths": len(requests),
    }


def _print(shape: ModelShape, hardware: HardwareSpec, layout: MemoryLayout, plan: MemoryPlan) -> None:
    split = layout.parallelism.text or "alone"
    table = columns(f"{shape.name} on {hardware.name}, {split}: bytes on each", ("part", "bytes", "share"))
    for name, size in plan.stack().items():
        table.add_row(f"{name}{_note(name, layout, plan)}", gigabytes(size), f"{size / plan.memory_bytes:.1%}")
    table.add_section()
    table.add_row("memory", gigabytes(plan.memory_bytes), "100.0%")
    console.out.print(table)


def _note(name: str, layout: MemoryLayout, plan: MemoryPlan) -> str:
    """Which format a part is in, or that it is assumed."""
    if name == "KV cache":
        return f" (in {layout.kv_dtype})"
    if name in plan.weights:
        narrow = name == "routed experts" or (name == "attention and MLPs" and layout.scope == "layers")
        return f" (in {layout.weight_dtype if narrow else activation_format(layout.weight_dtype)})"
    return " (a prior)" if name in plan.others and name != "activations" else ""


def _room(layout: MemoryLayout, plan: MemoryPlan, longest: int, mix: dict[str, Any] | None) -> dict[str, str]:
    of = "a data-parallel rank" if layout.parallelism.data > 1 else "a replica"
    lines = {
        "KV cache of a token": f"{plan.kv_bytes_per_token:,.0f} B on each accelerator",
        "KV blocks": f"{plan.kv_blocks:,} of {plan.block_size} tokens: {plan.kv_tokens:,} tokens in {of}",
        f"all of {longest:,} tokens": f"{plan.max_sequences(longest):,} at once in {of}",
    }
    if plan.sliding_window is not None:
        windowed = plan.num_layers - plan.num_full_layers
        lines["windows"] = (
            f"{windowed} of {plan.num_layers} layers keep {plan.sliding_window:,} tokens; what they leave free is "
            "counted in the requests, not in the blocks"
        )
    if mix is not None:
        lines[f"the mix, {mix['confidence']:.0%} of moments"] = (
            f"{mix['max_sequences']:,} at once in {of}, each holding {mix['mean_held_tokens']:,.0f} tokens in the mean"
        )
    return lines


def _json(
    shape: ModelShape, hardware: HardwareSpec, layout: MemoryLayout, plan: MemoryPlan, context: int
) -> dict[str, Any]:
    return {
        "model": shape.name,
        "hardware": hardware.name,
        **asdict(layout),
        **asdict(plan),
        "weight_bytes": plan.weight_bytes,
        "other_bytes": plan.other_bytes,
        "kv_bytes": plan.kv_bytes,
        "kv_blocks": plan.kv_blocks,
        "kv_tokens": plan.kv_tokens,
        "stack": plan.stack(),
        "context_tokens": context,
        "max_sequences": plan.max_sequences(context),
        "provenance": "analytic",
    }
