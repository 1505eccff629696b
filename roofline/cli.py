"""`roofline`: what a model weighs, how long a pass takes at the roof, and what fits, before anything is measured."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from roofline import console
from roofline.analytic import AnalyticStepTime
from roofline.batch_text import parse_batch
from roofline.breakdown import Breakdown
from roofline.formats import BYTES_PER_ELEMENT, format_name
from roofline.hardware import Efficiency, accelerator
from roofline.memory import MemoryLayout, stored_formats
from roofline.model_source import load_model_shape
from roofline.parallelism import Parallelism
from roofline.prices import known_price
from roofline.scaling_law import Demand
from roofline.screen.memory import Lengths, show_memory
from roofline.screen.show import show_catalogue, show_model
from roofline.screen.training import Job, show_training
from roofline.step_time import BatchWork
from roofline.training import OPTIMIZER_BYTES, Speed, TrainingSetup

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What a model weighs, how long a forward pass takes at the roof, and what fits: arithmetic, no measurement.",
)

MODEL_HELP = "Catalogue name, Hugging Face folder or config.json, or .gguf file."
ModelName = Annotated[str, typer.Argument(help=MODEL_HELP)]
GpuName = Annotated[str, typer.Argument(help="Accelerator of the catalogue (H100, L40S, ...) or of --accelerators.")]
UserRows = Annotated[Path | None, typer.Option("--accelerators", help="JSON file of your own rows, catalogue schema.")]
Degree = Annotated[int, typer.Option("--tp", help="Tensor-parallel degree: accelerators that share one replica.")]
Stages = Annotated[int, typer.Option("--pp", help="Pipeline-parallel degree: stages of layers.")]
DataRanks = Annotated[int, typer.Option("--dp", help="Data-parallel ranks that share one set of experts.")]
ExpertRanks = Annotated[int, typer.Option("--ep", help="Expert-parallel degree: ranks that hold different experts.")]
WEIGHTS_HELP = f"Weight format: {', '.join(BYTES_PER_ELEMENT)}."
Weights = Annotated[str, typer.Option("--weights", help=WEIGHTS_HELP)]
Kv = Annotated[str, typer.Option("--kv", help="KV cache format, named as the weights' are.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@app.command()
def show(
    model: Annotated[str | None, typer.Argument(help=f"{MODEL_HELP} None: list what has a name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's shape, parameters and bytes by number format; without MODEL, all models and accelerators."""
    if model is None:
        show_catalogue(as_json)
    else:
        show_model(model, as_json)


@app.command()
def step(
    model: ModelName,
    gpu: GpuName,
    *,
    decode: Annotated[list[str] | None, typer.Option(help="Decoding sequences: COUNTxCONTEXT, as 64x1024.")] = None,
    prefill: Annotated[list[str] | None, typer.Option(help="A prompt chunk: TOKENS or TOKENS@CACHED.")] = None,
    tensor_parallel: Degree = 1,
    weights: Weights = "bf16",
    kv: Kv = "bf16",
    accelerators: UserRows = None,
    as_json: AsJson = False,
) -> None:
    """Estimate one forward pass: its time, its parts, and which roof binds each.

    --decode and --prefill may be given several times; their sequences share the pass.
    """
    work = parse_batch(decode or [], prefill or [])
    shape, hardware = load_model_shape(model), accelerator(gpu, accelerators)
    estimate = AnalyticStepTime(
        shape, hardware, Efficiency.prior(hardware), format_name(weights), format_name(kv), Parallelism(tensor_parallel)
    )
    parts = estimate.breakdown(work)
    if as_json:
        console.print_json(_step_json(estimate, work, parts))
        return
    console.out.print(_step_table(estimate, parts))
    console.out.print(
        f"[bold]{parts.seconds * 1e3:.3f} ms[/], bound by {parts.bound}: "
        f"MFU {_mfu(estimate, parts):.0%}, MBU {_mbu(estimate, parts):.0%} of each accelerator's peak, "
        f"{(work.decode_tokens + work.num_prefill_seqs) / parts.seconds:,.0f} sampled tokens/s. "
        "Analytic: datasheet peaks and efficiency priors, nothing measured."
    )


@app.command()
def memory(
    model: ModelName,
    gpu: GpuName,
    *,
    context: Annotated[int, typer.Option(min=1, help="Tokens of a sequence, prompt and answer.")] = 4096,
    lengths: Annotated[
        str | None,
        typer.Option(help="A mix instead: PROMPT+OUTPUT[@WEIGHT],... or a .csv or .parquet of requests."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Share of moments at which the mix has to fit.")] = 0.99,
    tensor_parallel: Degree = 1,
    pipeline_parallel: Stages = 1,
    data_parallel: DataRanks = 1,
    expert_parallel: ExpertRanks = 1,
    weights: Annotated[str | None, typer.Option("--weights", help=f"{WEIGHTS_HELP} Default: the checkpoint's.")] = None,
    kv: Annotated[str | None, typer.Option("--kv", help="KV cache format. Default: the checkpoint's, or bf16.")] = None,
    block_size: Annotated[int, typer.Option(help="Tokens of a cache block.")] = 16,
    max_batched_tokens: Annotated[int, typer.Option(help="Tokens of the largest pass: its activations count.")] = 8192,
    max_sequences: Annotated[int, typer.Option(help="Sequences of the largest pass: their logits count.")] = 256,
    memory_fraction: Annotated[
        float, typer.Option(help="Share of the memory that the engine may take; vLLM's default is 0.9.")
    ] = 1.0,
    accelerators: UserRows = None,
    as_json: AsJson = False,
) -> None:
    """Show what fits on each accelerator: weights, the rest, KV blocks, and how many requests run at once.

    --lengths sizes for a mix of requests, each holding its prompt and the answer so far, instead of for the longest.
    What does not fit is an error that names the nearest changes that make it fit.
    """
    shape, hardware = load_model_shape(model), accelerator(gpu, accelerators)
    weight_format, scope, kv_format = stored_formats(shape, weights, kv)
    layout = MemoryLayout(
        weight_format,
        kv_format,
        Parallelism(tensor_parallel, pipeline_parallel, data_parallel, expert_parallel),
        block_size,
        max_batched_tokens,
        max_sequences,
        memory_fraction,
        scope,
    )
    show_memory(shape, hardware, layout, Lengths(context, lengths, confidence), as_json)


@app.command()
def training(
    model: ModelName,
    gpu: GpuName,
    *,
    tokens: Annotated[float, typer.Option(help="Tokens to train on, as 15e12.")],
    gpus: Annotated[int, typer.Option(help="Accelerators.")] = 8,
    method: Annotated[str, typer.Option(help="pretrain, sft, dpo, grpo, ppo.")] = "pretrain",
    adapter: Annotated[str, typer.Option(help="full, lora, qlora.")] = "full",
    lora_rank: Annotated[int, typer.Option(help="Rank of the adapters.")] = 16,
    zero: Annotated[int, typer.Option(help="ZeRO stage 0 to 3; 3 is FSDP.")] = 3,
    optimizer: Annotated[str, typer.Option(help=f"{', '.join(OPTIMIZER_BYTES)}.")] = "adamw",
    micro_batch_tokens: Annotated[int, typer.Option(help="Tokens on one accelerator at a time.")] = 8192,
    checkpointing: Annotated[bool, typer.Option(help="Compute activations again in the backward pass.")] = True,
    mfu: Annotated[float, typer.Option(help="Model FLOPs over the dense bf16 peak: an assumption.")] = 0.4,
    generation_mfu: Annotated[float, typer.Option(help="The same while sampling (ppo, grpo).")] = 0.1,
    price_per_hour: Annotated[float | None, typer.Option("--price", help="$ per accelerator and hour.")] = None,
    prices: Annotated[Path | None, typer.Option(help="JSON file of your own prices, catalogue schema.")] = None,
    serve_prompt_tokens: Annotated[float, typer.Option(help="Prompt tokens that the model will serve.")] = 0.0,
    serve_output_tokens: Annotated[float, typer.Option(help="Output tokens that the model will serve.")] = 0.0,
    accelerators: UserRows = None,
    as_json: AsJson = False,
) -> None:
    """Show what training takes: memory on each accelerator, days, dollars, and the cheapest size of the same loss.

    With --serve-prompt-tokens or --serve-output-tokens the cheapest size counts what serving will cost.
    """
    shape, hardware = load_model_shape(model), accelerator(gpu, accelerators)
    setup = TrainingSetup(
        gpus, zero, method, adapter, lora_rank, optimizer,
        micro_batch_tokens=micro_batch_tokens, checkpointing=checkpointing,
    )  # fmt: skip
    speed = Speed(mfu, generation_mfu)
    demand = None
    if serve_prompt_tokens or serve_output_tokens:
        demand = Demand(serve_prompt_tokens, serve_output_tokens, mfu, mfu, generation_mfu)
    money = known_price(hardware.name, price_per_hour, prices)
    show_training(Job(shape, hardware, setup, tokens, speed, money, demand), as_json)


def main() -> None:
    """Entry point of the console script."""
    console.run(app)


def _step_table(estimate: AnalyticStepTime, parts: Breakdown) -> Table:
    degree = f", tensor parallelism {estimate.parallelism.tensor}" if estimate.parallelism.tensor > 1 else ""
    title = f"{estimate.shape.name} on {estimate.hardware.name}{degree}, on each accelerator"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    table.add_column("part", no_wrap=True)
    for heading in ("ms", "GFLOP", "GB", "math ms", "mem ms"):
        table.add_column(heading, justify="right")
    table.add_column("bound")
    for term in parts.terms:
        if not term.seconds:
            continue
        roofs = [f"{term.math_s * 1e3:.3f}", f"{term.memory_s * 1e3:.3f}"] if term.memory_s else ["", ""]
        amounts = [
            f"{term.flops / 1e9:,.0f}" if term.flops else "",
            f"{term.bytes / 1e9:,.2f}" if term.bytes else "",
        ]
        table.add_row(term.name, f"{term.seconds * 1e3:.3f}", *amounts, *roofs, term.bound)
    return table


def _step_json(estimate: AnalyticStepTime, work: BatchWork, parts: Breakdown) -> dict[str, Any]:
    return {
        "model": estimate.shape.name,
        "hardware": estimate.hardware.name,
        "tensor_parallel": estimate.parallelism.tensor,
        "weight_dtype": estimate.weight_dtype,
        "kv_dtype": estimate.kv_dtype,
        "provenance": "analytic",
        "efficiency": asdict(estimate.efficiency),
        "work": work._asdict(),
        "seconds": parts.seconds,
        "bound": parts.bound,
        "flops_per_accelerator": parts.flops,
        "memory_bytes_per_accelerator": parts.memory_bytes,
        "mfu": _mfu(estimate, parts),
        "mbu": _mbu(estimate, parts),
        "terms": [{**asdict(term), "bound": term.bound} for term in parts.terms],
    }


def _mfu(estimate: AnalyticStepTime, parts: Breakdown) -> float:
    """Share of the dense peak that the pass uses."""
    return parts.flops / (parts.seconds * estimate.hardware.flops_per_s(estimate.weight_dtype))


def _mbu(estimate: AnalyticStepTime, parts: Breakdown) -> float:
    """Share of the peak memory bandwidth that the pass uses."""
    return parts.memory_bytes / (parts.seconds * estimate.hardware.memory_bytes_per_s)


if __name__ == "__main__":
    main()
