"""`roofline`: what a model weighs, how long a pass takes at the roof, and what fits, before anything is measured."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from roofline import console
from roofline.fitting import fitting_plan
from roofline.formats import BYTES_PER_ELEMENT, format_name
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.memory import MemoryLayout, MemoryPlan
from roofline.model_shape import ModelShape
from roofline.model_source import load_model_shape
from roofline.parallelism import Parallelism
from roofline.step_cli import compare, step

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What a model weighs, how long a forward pass takes at the roof, and what fits: arithmetic, no measurement.",
)

ModelName = Annotated[str, typer.Argument(help="Catalogue name, Hugging Face folder or config.json, or .gguf file.")]
GpuName = Annotated[str, typer.Argument(help="Accelerator of the catalogue (H100, L40S, ...) or of --accelerators.")]
UserRows = Annotated[Path | None, typer.Option("--accelerators", help="JSON file of your own rows, catalogue schema.")]
Degree = Annotated[int, typer.Option("--tp", help="Tensor-parallel degree: accelerators that share one replica.")]
Weights = Annotated[str, typer.Option("--weights", help=f"Weight format: {', '.join(BYTES_PER_ELEMENT)}.")]
Kv = Annotated[str, typer.Option("--kv", help="KV cache format, named as the weights' are.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@app.command()
def show(model: ModelName, as_json: AsJson = False) -> None:
    """Show a model's shape, its parameter count, and its bytes by number format."""
    shape = load_model_shape(model)
    sizes: dict[str, Any] = {
        "num_parameters": shape.num_parameters,
        "non_embedding_parameters": shape.non_embedding_parameters,
        "linear_parameters": shape.linear_parameters,
        "weight_bytes": {dtype: shape.weight_bytes(dtype) for dtype in BYTES_PER_ELEMENT},
        "kv_bytes_per_token": {dtype: shape.kv_bytes_per_token(dtype) for dtype in ("fp32", "bf16", "fp8")},
    }
    if as_json:
        console.print_json({"shape": asdict(shape), **sizes})
        return
    console.out.print(_pairs(shape.name, _shape_lines(shape)))
    table = Table("format", "weights", "KV cache of a token", title="bytes")
    for dtype, size in sizes["weight_bytes"].items():
        kv_bytes = sizes["kv_bytes_per_token"].get(dtype)
        table.add_row(dtype, _gigabytes(size), f"{kv_bytes:,} B" if kv_bytes else "")
    console.out.print(table)


app.command()(step)
app.command()(compare)


@app.command()
def memory(
    model: ModelName,
    gpu: GpuName,
    *,
    context: Annotated[int, typer.Option(min=1, help="Tokens of a sequence, prompt and answer.")] = 4096,
    tensor_parallel: Degree = 1,
    weights: Weights = "bf16",
    kv: Kv = "bf16",
    accelerators: UserRows = None,
    as_json: AsJson = False,
) -> None:
    """Show what fits on each accelerator: weights, the rest, KV blocks, and sequences at a context length."""
    shape, hardware = load_model_shape(model), accelerator(gpu, accelerators)
    layout = MemoryLayout(format_name(weights), format_name(kv), Parallelism(tensor_parallel))
    plan = fitting_plan(shape, hardware, Efficiency.prior(hardware), layout, context)
    if as_json:
        console.print_json(_memory_json(shape, hardware, layout, plan, context))
        return
    console.out.print(_memory_table(shape, hardware, layout, plan, context))


def main() -> None:
    """Entry point of the console script."""
    console.run(app)


def _shape_lines(shape: ModelShape) -> dict[str, str]:
    return {
        "parameters": f"{shape.num_parameters:,} ({shape.non_embedding_parameters:,} without embedding and head)",
        "layers": str(shape.num_layers),
        "hidden, MLP": f"{shape.hidden_size}, {shape.intermediate_size}",
        "heads": f"{shape.num_heads} query, {shape.num_kv_heads} KV, of {shape.head_dim}",
        "vocabulary": f"{shape.vocab_size:,}{', tied with the output head' if shape.tie_embeddings else ''}",
        "context": f"{shape.max_position:,} tokens",
    }


def _memory_table(
    shape: ModelShape, hardware: HardwareSpec, layout: MemoryLayout, plan: MemoryPlan, context: int
) -> Table:
    lines = {
        f"weights in {layout.weight_dtype}": _gigabytes(plan.weight_bytes),
        "context, activations, graphs": f"{_gigabytes(plan.other_bytes)} (a prior)",
        f"KV cache in {layout.kv_dtype}": _gigabytes(plan.kv_bytes),
        "memory": _gigabytes(plan.memory_bytes),
        "KV blocks": f"{plan.kv_blocks:,} of {plan.block_size} tokens: {plan.kv_tokens:,} tokens in a replica",
        f"sequences of {context:,} tokens": f"{plan.max_sequences(context):,} at once in a replica",
    }
    return _pairs(f"{shape.name} on {layout.parallelism.accelerators} x {hardware.name}, bytes on each", lines)


def _memory_json(
    shape: ModelShape, hardware: HardwareSpec, layout: MemoryLayout, plan: MemoryPlan, context: int
) -> dict[str, Any]:
    return {
        "model": shape.name,
        "hardware": hardware.name,
        **asdict(layout),
        **asdict(plan),
        "kv_bytes": plan.kv_bytes,
        "kv_blocks": plan.kv_blocks,
        "kv_tokens": plan.kv_tokens,
        "context_tokens": context,
        "max_sequences": plan.max_sequences(context),
        "provenance": "analytic",
    }


def _pairs(title: str, lines: dict[str, str]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in lines.items():
        table.add_row(name, value)
    return table


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.3f} GB"


if __name__ == "__main__":
    main()
