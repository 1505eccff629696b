"""`engine bench throughput | latency`: the engine without a clock of arrivals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.bench import options as o
from engine.bench.app import app
from engine.bench.engine_choice import EngineChoice
from engine.bench.load import Load
from engine.bench.running import machine_of, print_sentences, shares_of
from engine.core.bench_result import bench_result
from engine.core.trace import BENCH_RESULT_FILE, Trace, check_writable, write_trace
from roofline import console
from roofline.errors import InputError

if TYPE_CHECKING:
    from engine.bench.serve import Session

WorkloadOption = Annotated[
    Literal["mixed-256", "lengths"],
    typer.Option(help="mixed-256: 256 requests of 100 to 1024 tokens; lengths: of --input-len and --output-len."),
]


@app.command()
def throughput(
    *,
    model: o.ModelOption = o.DEFAULT_MODEL,
    workload: WorkloadOption = "mixed-256",
    input_len: o.InputOption = None,
    output_len: o.OutputOption = None,
    num_requests: Annotated[int | None, typer.Option(help="How many; 256 without it.")] = None,
    longest: Annotated[int, typer.Option(help="Longest prompt and answer of mixed-256.")] = 1024,
    temperature: o.TemperatureOption = 0.6,
    seed: o.SeedOption = 0,
    num_blocks: o.BlocksOption = None,
    block_size: o.BlockSizeOption = 16,
    max_num_seqs: o.SeqsOption = None,
    max_num_batched_tokens: o.BatchedOption = None,
    max_model_len: o.ContextOption = None,
    async_scheduling: o.AsyncOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = None,
    kv_cache_dtype: o.KvDtypeOption = "auto",
    gpu_memory_utilization: o.UtilizationOption = 0.9,
    load_format: o.LoadFormatOption = "auto",
    threads: o.ThreadsOption = None,
    out: o.OutOption = Path("out/bench-throughput"),
    table_format: o.FormatOption = "parquet",
    as_json: o.JsonOption = False,
) -> None:
    """Send all requests at once; print tokens/s in, out and together, and how much of the machine they used.

    Prompts are random tokens, and every answer is as long as the workload says.
    """
    from engine.bench.offline import mixed_256

    count = 256 if num_requests is None else num_requests
    if workload == "mixed-256":
        if input_len or output_len:
            raise InputError("mixed-256 brings its own lengths; leave out --input-len and --output-len.")
        requests = mixed_256(count, longest)
    else:
        requests = Load(None, input_len, output_len, float("inf"), 1.0, count).workload(seed)
    check_writable(out)
    settings = {
        "num_blocks": num_blocks, "block_size": block_size, "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens, "max_model_len": max_model_len,
        "async_scheduling": async_scheduling, "kv_cache_dtype": kv_cache_dtype,
        "gpu_memory_utilization": gpu_memory_utilization,
    }  # fmt: skip
    llm = EngineChoice(model, device, dtype, load_format, threads).load(settings)
    from engine.bench import serve

    with console.err.status("Warming up ..."):
        session = serve.prepare(llm, requests, seed, temperature=temperature)
    _measure_throughput(session, o.Output(out, table_format, as_json))


def _measure_throughput(session: "Session", output: o.Output) -> None:
    """Run a session that is ready, write what it measured, and show it."""
    from engine.bench import summary

    machine = machine_of(session.llm)
    with console.progress("requests") as progress:
        task = progress.add_task("serving", total=len(session.workload))
        served = session.run(machine, lambda live, _: progress.update(task, completed=live.num_finished))
    _write(output, served.trace)
    share = shares_of(served.trace, session.llm, machine)
    if output.as_json:
        console.print_json(summary.throughput_json(served, share, output.folder))
    else:
        sentences = [*summary.throughput_sentences(served), *summary.roofline_sentences(share, machine)]
        print_sentences([*sentences, f"Trace and {BENCH_RESULT_FILE} are in {output.folder}."])
    if served.interrupted:
        raise typer.Exit(o.INTERRUPTED)


@app.command()
def latency(
    *,
    model: o.ModelOption = o.DEFAULT_MODEL,
    batch_size: Annotated[int, typer.Option(help="Requests of a batch.")] = 1,
    input_len: Annotated[int, typer.Option(help="Prompt tokens of each.")] = 128,
    output_len: Annotated[int, typer.Option(help="Output tokens of each.")] = 32,
    iterations: Annotated[int, typer.Option(help="Batches, one after the other.")] = 5,
    seed: o.SeedOption = 0,
    num_blocks: o.BlocksOption = None,
    block_size: o.BlockSizeOption = 16,
    max_model_len: o.ContextOption = None,
    async_scheduling: o.AsyncOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = None,
    kv_cache_dtype: o.KvDtypeOption = "auto",
    gpu_memory_utilization: o.UtilizationOption = 0.9,
    load_format: o.LoadFormatOption = "auto",
    threads: o.ThreadsOption = None,
    out: o.OutOption = Path("out/bench-latency"),
    table_format: o.FormatOption = "parquet",
    as_json: o.JsonOption = False,
) -> None:
    """Time batches of equal requests that have the engine to themselves; print the percentiles of their latencies.

    Ctrl-C keeps the batches before it.
    """
    from engine.bench.offline import LatencyPlan, latencies, measure_latency

    plan = LatencyPlan(batch_size, input_len, output_len, iterations)
    check_writable(out)
    settings = {
        "num_blocks": num_blocks, "block_size": block_size, "max_model_len": max_model_len,
        "async_scheduling": async_scheduling, "kv_cache_dtype": kv_cache_dtype,
        "gpu_memory_utilization": gpu_memory_utilization,
    }  # fmt: skip
    llm = EngineChoice(model, device, dtype, load_format, threads).load(settings)
    from engine.bench import summary

    machine = machine_of(llm)
    with console.progress("batches") as progress:
        task = progress.add_task("measuring", total=iterations)
        trace = measure_latency(llm, plan, machine, seed, lambda: progress.advance(task))
    _write(o.Output(out, table_format, as_json), trace)
    share, found = shares_of(trace, llm, machine), latencies(trace.requests)
    if as_json:
        console.print_json({"trace": str(out), "latency": found, "roofline": share.as_dict() if share else None})
    else:
        console.out.print(summary.percentiles_table(found))
        print_sentences([*summary.roofline_sentences(share, machine), f"Trace and {BENCH_RESULT_FILE} are in {out}."])
    if trace.meta["workload"]["interrupted"]:
        raise typer.Exit(o.INTERRUPTED)


def _write(output: o.Output, trace: Trace) -> None:
    texts = {BENCH_RESULT_FILE: json.dumps(bench_result(trace), indent=1, allow_nan=False) + "\n"}
    write_trace(output.folder, trace, output.table_format, texts)
