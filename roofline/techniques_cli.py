"""`roofline techniques`: the command."""

from typing import Annotated

import typer

from roofline.analytic import AnalyticStepTime
from roofline.hardware import Efficiency, accelerator
from roofline.memory import stored_formats
from roofline.model_source import load_model_shape
from roofline.options import AsJson, GpuName, Kv, ModelName, Tensor, UserRows, Weights
from roofline.parallelism import Parallelism
from roofline.screen.techniques import Question, show_techniques
from roofline.techniques import KvKeep, Speculation

app = typer.Typer()  # its command is one of `roofline`


@app.command()
def techniques(
    model: ModelName,
    gpu: GpuName,
    *,
    batch: Annotated[int, typer.Option(help="Sequences that decode.")] = 32,
    context: Annotated[int, typer.Option(help="Tokens that each of them has cached.")] = 2048,
    prompt: Annotated[int, typer.Option(help="Tokens of a prompt that arrives.")] = 2048,
    drafts: Annotated[int, typer.Option(help="Speculation: tokens drafted a step.")] = 4,
    acceptance: Annotated[float, typer.Option(help="Speculation: probability that a draft is accepted.")] = 0.7,
    draft_model: Annotated[str | None, typer.Option(help="Speculation: who drafts. None: drafts cost nothing.")] = None,
    hit_ratio: Annotated[float, typer.Option(help="Prefix cache: share of the prompt found in it.")] = 0.5,
    chunk: Annotated[int, typer.Option(help="Chunked prefill: tokens of a chunk.")] = 512,
    sinks: Annotated[int, typer.Option(help="First tokens that a sequence keeps beside a window.")] = 4,
    window: Annotated[int, typer.Option(help="Last tokens that a sequence keeps.")] = 1024,
    ratio: Annotated[float, typer.Option(help="Share of the cache that compression keeps.")] = 1.0,
    longer: Annotated[int | None, typer.Option(help="Context to stretch to. None: twice the model's.")] = None,
    tensor_parallel: Tensor = 1,
    weights: Weights = None,
    kv: Kv = None,
    accelerators: UserRows = None,
    as_json: AsJson = False,
) -> None:
    """Show what each technique gives on one accelerator or replica: formats, kernels, speculation, caches, contexts."""
    shape, hardware = load_model_shape(model), accelerator(gpu, accelerators)
    weight_dtype, _, kv_dtype = stored_formats(shape, weights, kv)
    efficiency, split = Efficiency.prior(hardware), Parallelism(tensor_parallel)
    base = AnalyticStepTime(shape, hardware, efficiency, weight_dtype, kv_dtype, split)
    drafter = None
    if draft_model is not None:
        small = load_model_shape(draft_model)
        own_weights, _, own_kv = stored_formats(small)
        drafter = AnalyticStepTime(small, hardware, efficiency, own_weights, own_kv, split)
    question = Question(
        batch, context, prompt, Speculation(acceptance, drafts, drafter), hit_ratio, chunk,
        KvKeep(sinks, window, ratio), 2 * shape.max_position if longer is None else longer,
    )  # fmt: skip
    show_techniques(base, question, as_json)
