"""`roofline step` and `roofline compare`: the commands, their tables and their JSON."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table

from roofline import console
from roofline.analytic import AnalyticStepTime
from roofline.batch_text import parse_batch
from roofline.breakdown import Breakdown
from roofline.catalogue_data import shipped_rows
from roofline.compare import RoofCost, Service, cheapest_replica, roof_cost
from roofline.errors import CapacityError, InfeasibleError, InputError
from roofline.forward_pass import Execution
from roofline.hardware import Efficiency, HardwareSpec, accelerator
from roofline.memory import stored_formats
from roofline.model_source import load_model_shape
from roofline.options import AsJson, Data, Expert, Figure, GpuName, Kv, ModelName, Pipeline, Tensor, UserRows, Weights
from roofline.parallelism import Parallelism
from roofline.prices import price
from roofline.step_time import BatchWork

Peak = Annotated[bool, typer.Option("--peak", help="Datasheet ceilings, nothing lost: a bound, not an estimate.")]
PriceLevel = Literal["low", "typical", "high"]

app = typer.Typer()  # its commands are those of `roofline`


@app.command()
def step(
    model: ModelName,
    gpu: GpuName,
    *,
    decode: Annotated[list[str] | None, typer.Option(help="Decoding sequences: COUNTxCONTEXT, as 64x1024.")] = None,
    prefill: Annotated[list[str] | None, typer.Option(help="A prompt chunk: TOKENS or TOKENS@CACHED.")] = None,
    tensor_parallel: Tensor = 1,
    pipeline: Pipeline = 1,
    data: Data = 1,
    expert: Expert = 1,
    weights: Weights = None,
    kv: Kv = None,
    eager: Annotated[bool, typer.Option("--eager", help="No CUDA graphs: the host launches every kernel.")] = False,
    naive: Annotated[bool, typer.Option("--naive-attention", help="Attention whose scores go through memory.")] = False,
    unfused: Annotated[bool, typer.Option("--unfused", help="Nothing fused: more kernels, more traffic.")] = False,
    keep: Annotated[int | None, typer.Option(min=1, help="Cached tokens that a sequence keeps.")] = None,
    peak: Peak = False,
    accelerators: UserRows = None,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Estimate one forward pass: its time, its operators, and which roof binds each.

    --decode and --prefill may be given several times; their sequences share the pass.
    """
    work = parse_batch(decode or [], prefill or [])
    shape, hardware = load_model_shape(model), accelerator(gpu, accelerators)
    execution = Execution(
        graphs=not eager, attention="naive" if naive else "flash", fused=not unfused, kept_tokens=keep
    )
    weight_dtype, _, kv_dtype = stored_formats(shape, weights, kv)
    estimate = AnalyticStepTime(
        shape, hardware, _efficiency(hardware, peak), weight_dtype, kv_dtype,
        Parallelism(tensor_parallel, pipeline, data, expert), execution,
    )  # fmt: skip
    parts = estimate.breakdown(work)
    if figure is not None:
        from roofline import figures

        figures.write(figure, _title(estimate), [figures.roofline_plot(estimate, parts), figures.step_bars(parts)])
    if as_json:
        console.print_json(_step_json(estimate, work, parts))
        return
    console.out.print(_step_table(estimate, parts))
    console.out.print(_verdict(estimate, work, parts, peak))


@app.command()
def compare(
    model: ModelName,
    gpus: Annotated[list[str] | None, typer.Argument(help="Accelerators; all with a price by default.")] = None,
    *,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 1024,
    answer: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 256,
    tpot_ms: Annotated[float | None, typer.Option("--tpot-ms", help="Target: milliseconds an output token.")] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Answers that the engine computes at once, at most.")] = 1024,
    tensor_parallel: Annotated[int | None, typer.Option("--tp", help="Degree; the cheapest one by default.")] = None,
    weights: Weights = None,
    kv: Kv = None,
    prices: Annotated[PriceLevel, typer.Option(help="Which list price of an accelerator hour.")] = "typical",
    price_file: Annotated[Path | None, typer.Option("--price-file", help="JSON file of your own prices.")] = None,
    peak: Peak = False,
    accelerators: UserRows = None,
    figure: Figure = None,
    as_json: AsJson = False,
) -> None:
    """Set accelerators side by side: time per token and dollars per million tokens where nothing idles.

    Each replica runs at the largest batch that fits its memory and keeps --tpot-ms. A real service is never fully used:
    divide by its utilisation, or ask `simulator plan`.
    """
    shape = load_model_shape(model)
    target_s = None if tpot_ms is None else tpot_ms / 1e3
    weight_dtype, _, kv_dtype = stored_formats(shape, weights, kv)
    service = Service(prompt, answer, weight_dtype, kv_dtype, max_batch, target_s)
    names = gpus or [str(row["accelerator"]) for row in shipped_rows("prices")]
    costs, refused = list[RoofCost](), dict[str, str]()
    for name in names:
        hardware = accelerator(name, accelerators)
        usd = float(getattr(price(hardware.name, price_file), prices))
        efficiency = _efficiency(hardware, peak)
        try:
            if tensor_parallel is None:
                costs.append(cheapest_replica(shape, service, hardware, efficiency, usd))
                continue
            split = Parallelism(tensor_parallel)
            fixed = AnalyticStepTime(shape, hardware, efficiency, service.weight_dtype, service.kv_dtype, split)
            costs.append(roof_cost(shape, service, fixed, usd))
        except (CapacityError, InfeasibleError, InputError) as error:
            refused[hardware.name] = str(error)
    costs.sort(key=lambda cost: cost.usd_per_million_tokens)
    if figure is not None and costs:
        from roofline import figures

        figures.write(figure, f"{shape.name}, dollars per million tokens", [figures.cost_bars(costs)])
    if as_json:
        console.print_json(_compare_json(shape.name, service, costs, refused))
        return
    console.out.print(_compare_table(shape.name, service, costs))
    for sentence in refused.values():
        console.out.print(f"Left out: {console.escape(sentence)}")
    console.out.print(
        f"At {prices} list prices, every second used"
        + (", datasheet ceilings." if peak else ", usual efficiencies.")
        + " Analytic: nothing measured."
    )


def _efficiency(hardware: HardwareSpec, peak: bool) -> Efficiency:
    return Efficiency.ideal() if peak else Efficiency.prior(hardware)


def _title(estimate: AnalyticStepTime) -> str:
    split = estimate.parallelism.text
    return f"{estimate.shape.name} on {estimate.hardware.name}{', ' + split if split else ''}"


def _verdict(estimate: AnalyticStepTime, work: BatchWork, parts: Breakdown, peak: bool) -> str:
    basis = "datasheet ceilings, nothing lost" if peak else "datasheet peaks and efficiency priors, nothing measured"
    return (
        f"[bold]{parts.seconds * 1e3:.3f} ms[/], bound by {parts.bound}: "
        f"MFU {estimate.mfu(parts):.0%}, MBU {estimate.mbu(parts):.0%} of each accelerator's peak, "
        f"{(work.decode_tokens + work.num_prefill_seqs) / parts.seconds:,.0f} sampled tokens/s. Analytic: {basis}."
    )


def _step_table(estimate: AnalyticStepTime, parts: Breakdown) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{_title(estimate)}: one pass, on each accelerator", padding=(0, 1, 0, 0))
    table.add_column("operator", no_wrap=True)
    for heading in ("ms", "GFLOP", "GB", "math ms", "mem ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound")
    for term in parts.terms:
        if not term.seconds:
            continue
        roofs = [f"{term.math_s * 1e3:.3f}", f"{term.memory_s * 1e3:.3f}"] if term.memory_s else ["", ""]
        amounts = [
            f"{term.flops / 1e9:,.1f}" if term.flops else "",
            f"{term.bytes / 1e9:,.3f}" if term.bytes else "",
        ]
        table.add_row(term.name, f"{term.seconds * 1e3:.3f}", *amounts, *roofs, term.bound)
    return table


def _step_json(estimate: AnalyticStepTime, work: BatchWork, parts: Breakdown) -> dict[str, Any]:
    return {
        "model": estimate.shape.name,
        "hardware": estimate.hardware.name,
        "tensor_parallel": estimate.parallelism.tensor,
        "parallelism": asdict(estimate.parallelism),
        "execution": asdict(estimate.execution),
        "weight_dtype": estimate.weight_dtype,
        "kv_dtype": estimate.kv_dtype,
        "provenance": "analytic",
        "efficiency": asdict(estimate.efficiency),
        "work": work._asdict(),
        "seconds": parts.seconds,
        "bound": parts.bound,
        "bound_seconds": parts.bound_seconds,
        "kernels": estimate.forward.kernels,
        "flops_per_accelerator": parts.flops,
        "memory_bytes_per_accelerator": parts.memory_bytes,
        "mfu": estimate.mfu(parts),
        "mbu": estimate.mbu(parts),
        "terms": [{**asdict(term), "bound": term.bound} for term in parts.terms],
    }


def _compare_table(model: str, service: Service, costs: list[RoofCost]) -> Table:
    title = f"{model}, {service.weight_dtype}: {service.prompt_tokens:,} tokens in, {service.answer_tokens:,} out"
    table = Table(box=box.SIMPLE_HEAD, title=title, padding=(0, 1, 0, 0))
    table.add_column("replica", no_wrap=True)
    for heading in ("batch", "prompt\nms", "TPOT\nms", "tokens/s\na GPU", "$/M\nin", "$/M\nout", "$/M\nboth"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in costs:
        replica = f"{cost.tensor_parallel} x {cost.accelerator}"
        table.add_row(
            replica, f"{cost.batch:,}", f"{cost.prefill_s * 1e3:,.1f}", f"{cost.tpot_s * 1e3:,.1f}",
            f"{cost.output_tokens_per_s:,.0f}", f"{cost.usd_per_million_input_tokens:.3f}",
            f"{cost.usd_per_million_output_tokens:.3f}", f"{cost.usd_per_million_tokens:.3f}",
        )  # fmt: skip
    return table


def _compare_json(model: str, service: Service, costs: list[RoofCost], refused: dict[str, str]) -> dict[str, Any]:
    derived = (
        "output_tokens_per_s", "usd_per_million_input_tokens", "usd_per_million_output_tokens",
        "usd_per_million_tokens",
    )  # fmt: skip
    return {
        "model": model,
        "service": asdict(service),
        "provenance": "analytic",
        "utilisation": 1.0,
        "replicas": [{**asdict(cost), **{name: getattr(cost, name) for name in derived}} for cost in costs],
        "left_out": refused,
    }
