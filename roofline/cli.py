"""`roofline`: what a model weighs, how long a pass takes at the roof, and what fits, before anything is measured."""

from pathlib import Path
from typing import Annotated

import typer

from roofline import console
from roofline.hardware import accelerator
from roofline.memory import MemoryLayout, stored_formats
from roofline.model_source import load_model_shape
from roofline.options import (
    MODEL_HELP,
    AsJson,
    Data,
    Expert,
    Figure,
    GpuName,
    Kv,
    ModelName,
    Pipeline,
    Tensor,
    UserRows,
    Weights,
)  # fmt: skip
from roofline.parallelism import Parallelism
from roofline.prices import known_price
from roofline.scaling_law import Demand
from roofline.screen.accelerator import named_accelerator, show_accelerator
from roofline.screen.memory import Lengths, Output, show_memory
from roofline.screen.show import show_catalogue, show_model
from roofline.screen.training import Job, show_training
from roofline.step_cli import app as timing
from roofline.training import OPTIMIZER_BYTES, Speed, TrainingSetup

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What a model weighs, how long a forward pass takes at the roof, and what fits: arithmetic, no measurement.",
)


@app.command()
def show(
    model: Annotated[
        str | None, typer.Argument(help=f"{MODEL_HELP} Or an accelerator's name. None: list what has a name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's shape, parameters and bytes, or an accelerator's peaks, node and prices; without MODEL, all."""
    if model is None:
        show_catalogue(as_json)
    elif spec := named_accelerator(model):
        show_accelerator(spec, as_json)
    else:
        show_model(model, as_json)


app.add_typer(timing)


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
    tensor_parallel: Tensor = 1,
    pipeline_parallel: Pipeline = 1,
    data_parallel: Data = 1,
    expert_parallel: Expert = 1,
    weights: Weights = None,
    kv: Kv = None,
    block_size: Annotated[int, typer.Option(help="Tokens of a cache block.")] = 16,
    max_batched_tokens: Annotated[int, typer.Option(help="Tokens of the largest pass: its activations count.")] = 8192,
    max_sequences: Annotated[int, typer.Option(help="Sequences of the largest pass: their logits count.")] = 256,
    memory_fraction: Annotated[
        float, typer.Option(help="Share of the memory that the engine may take; vLLM's default is 0.9.")
    ] = 1.0,
    accelerators: UserRows = None,
    figure: Figure = None,
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
    show_memory(shape, hardware, layout, Lengths(context, lengths, confidence), Output(as_json, figure))


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


if __name__ == "__main__":
    main()
