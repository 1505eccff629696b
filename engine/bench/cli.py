"""`engine bench`: measure this engine on this machine and write traces that calibration and the simulator read."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from engine.bench import campaign_cli, offline_cli
from engine.bench import options as o
from engine.bench.app import app
from engine.bench.engine_choice import EngineChoice
from engine.bench.grid import Grid
from engine.bench.load import Load
from engine.bench.running import machine_of, print_sentences, shares_of
from engine.core.bench_result import bench_result
from engine.core.metrics import Slo, parse_slo
from engine.core.trace import BENCH_RESULT_FILE, check_writable, write_trace
from roofline import console

if TYPE_CHECKING:
    from engine.bench.loop import Live
    from engine.bench.serve import Session
    from engine.bench.steps import GridSession

__all__ = ["app", "campaign_cli", "offline_cli"]  # the two modules add their commands as they are loaded


def listed(name: str) -> str:
    """A list of the default grid as an option takes it."""
    return ",".join(map(str, getattr(Grid(), name)))


@app.command()
def serve(
    *,
    model: o.ModelOption = o.DEFAULT_MODEL,
    trace: o.TraceOption = None,
    request_rate: o.RateOption = None,
    burstiness: o.BurstinessOption = 1.0,
    input_len: o.InputOption = None,
    output_len: o.OutputOption = None,
    num_requests: o.CountOption = None,
    duration: o.DurationOption = None,
    max_concurrency: o.ConcurrencyOption = None,
    slo: o.SloOption = None,
    seed: o.SeedOption = 0,
    num_blocks: o.BlocksOption = None,
    block_size: o.BlockSizeOption = 16,
    max_num_seqs: o.SeqsOption = None,
    max_num_batched_tokens: o.BatchedOption = None,
    max_model_len: o.ContextOption = None,
    prefix_caching: o.PrefixOption = True,
    chunked_prefill: o.ChunkedOption = True,
    async_scheduling: o.AsyncOption = None,
    policy: o.PolicyOption = "fcfs",
    temperature: o.TemperatureOption = 0.0,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = None,
    kv_cache_dtype: o.KvDtypeOption = "auto",
    gpu_memory_utilization: o.UtilizationOption = 0.9,
    load_format: o.LoadFormatOption = "auto",
    threads: o.ThreadsOption = None,
    out: o.OutOption = Path("out/bench-serve"),
    table_format: o.FormatOption = "parquet",
    as_json: o.JsonOption = False,
) -> None:
    """Serve a workload in real time; write its trace folder, with bench.json in `vllm bench serve` format in it.

    Requests arrive by the clock whether the engine keeps up or not (open loop), unless --max-concurrency holds them
    back. Ctrl-C ends the run with a complete partial trace.
    """
    targets = None if slo is None else parse_slo(slo)
    workload = Load(trace, input_len, output_len, request_rate, burstiness, num_requests, duration).workload(seed)
    check_writable(out)
    settings = {
        "num_blocks": num_blocks, "block_size": block_size, "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens, "max_model_len": max_model_len,
        "enable_prefix_caching": prefix_caching, "enable_chunked_prefill": chunked_prefill,
        "async_scheduling": async_scheduling, "policy": policy, "kv_cache_dtype": kv_cache_dtype,
        "gpu_memory_utilization": gpu_memory_utilization,
    }  # fmt: skip
    llm = EngineChoice(model, device, dtype, load_format, threads).load(settings)
    from engine.bench.serve import prepare

    with console.err.status("Warming up ..."):
        session = prepare(llm, workload, seed, max_concurrency, temperature)
    _serve(session, targets, o.Output(out, table_format, as_json))


def _serve(session: "Session", targets: Slo | None, output: o.Output) -> None:
    """Run a session that is ready, write what it measured, and show it."""
    from engine.bench import summary

    machine = machine_of(session.llm)
    with console.progress("requests") as progress:
        task = progress.add_task("serving", total=len(session.workload))
        served = session.run(machine, _Shower(progress, task))
    texts = {BENCH_RESULT_FILE: json.dumps(bench_result(served.trace, targets), indent=1, allow_nan=False) + "\n"}
    write_trace(output.folder, served.trace, output.table_format, texts)
    share = shares_of(served.trace, session.llm, machine)
    if output.as_json:
        console.print_json(summary.serve_json(served, share, output.folder))
    else:
        console.out.print(summary.latency_table(served))
        print_sentences(summary.serve_sentences(served, share, machine))
        print_sentences([f"Trace and {BENCH_RESULT_FILE} are in {output.folder}."])
    if served.interrupted:
        raise typer.Exit(o.INTERRUPTED)


@app.command()
def steps(
    *,
    model: o.ModelOption = o.DEFAULT_MODEL,
    decode_batches: Annotated[str, typer.Option(help="Sequences that decode together.")] = listed("decode_batches"),
    contexts: Annotated[str, typer.Option(help="Tokens in the cache of each.")] = listed("contexts"),
    chunks: Annotated[str, typer.Option(help="Tokens of a prefill chunk.")] = listed("chunks"),
    histories: Annotated[str, typer.Option(help="Cached tokens before a chunk.")] = listed("histories"),
    mixed_chunks: Annotated[str, typer.Option(help="Chunks beside a decode batch.")] = listed("mixed_chunks"),
    packs: Annotated[str, typer.Option(help="Sequences that share a chunk, besides one.")] = listed("packs"),
    skewed_batches: Annotated[str, typer.Option(help="Sequences that decode at unequal contexts.")] = listed(
        "skewed_batches"
    ),
    max_decode_tokens: Annotated[
        int | None, typer.Option(help="Leave out decode points with more tokens in the cache.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each point; the median one is kept.")] = Grid().repeats,
    seed: o.SeedOption = 0,
    block_size: o.BlockSizeOption = 16,
    num_blocks: o.BlocksOption = None,
    max_num_batched_tokens: o.BatchedOption = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = None,
    kv_cache_dtype: o.KvDtypeOption = "auto",
    gpu_memory_utilization: o.UtilizationOption = 0.9,
    load_format: o.LoadFormatOption = "auto",
    threads: o.ThreadsOption = None,
    out: o.OutOption = Path("out/bench-steps"),
    table_format: o.FormatOption = "parquet",
    as_json: o.JsonOption = False,
) -> None:
    """Time a grid of batch compositions, each with real keys and values in the cache; write a trace of steps.

    Lists are numbers with commas. Ctrl-C keeps the points measured so far.
    """
    named = {"decode_batches": decode_batches, "contexts": contexts, "chunks": chunks, "histories": histories}
    named |= {"mixed_chunks": mixed_chunks, "packs": packs, "skewed_batches": skewed_batches}
    lists = {name: o.numbers(name, text) for name, text in named.items()}
    grid = Grid(**lists, repeats=repeats, max_decode_tokens=max_decode_tokens)
    check_writable(out)
    budget = grid.least_budget if max_num_batched_tokens is None else max_num_batched_tokens
    settings = {
        "num_blocks": grid.num_blocks(block_size, budget) if num_blocks is None else num_blocks,
        "block_size": block_size,
        "max_num_batched_tokens": budget,
        "max_num_seqs": grid.most_sequences,
        "async_scheduling": False,  # a step is measured alone, with all its own work
        "kv_cache_dtype": kv_cache_dtype,
        "gpu_memory_utilization": gpu_memory_utilization,
    }
    llm = EngineChoice(model, device, dtype, load_format, threads).load(settings)
    from engine.bench.steps import prepare

    with console.err.status("Warming up ..."):
        session = prepare(llm, grid, seed)
    _measure_grid(session, o.Output(out, table_format, as_json))


def _measure_grid(session: "GridSession", output: o.Output) -> None:
    """Run a grid that is ready, write what it measured, and show it."""
    from engine.bench import summary

    machine = machine_of(session.llm)
    with console.progress("points") as progress:
        task = progress.add_task("measuring", total=session.grid.num_points)
        trace = session.run(machine, lambda: progress.advance(task))
    write_trace(output.folder, trace, output.table_format)
    share = shares_of(trace, session.llm, machine)
    if output.as_json:
        console.print_json(summary.steps_json(trace, share, output.folder))
    else:
        console.out.print(summary.steps_table(trace.steps))
        print_sentences([*summary.roofline_sentences(share, machine), f"The trace is in {output.folder}."])
    if trace.meta["workload"]["interrupted"]:
        print_sentences(["Interrupted: the trace holds the points measured before."])
        raise typer.Exit(o.INTERRUPTED)


class _Shower:
    """Keeps the progress bar and its running figures; a few times a second, so that it does not disturb the run."""

    EVERY_S = 0.5

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task, self._next_s = progress, task, 0.0

    def __call__(self, live: "Live", now_s: float) -> None:
        if now_s < self._next_s:
            return
        self._next_s = now_s + self.EVERY_S
        ttft = 1000 * live.ttft_sum_s / live.num_first_tokens if live.num_first_tokens else 0
        tpot = 1000 * live.gap_sum_s / live.num_gaps if live.num_gaps else 0
        text = f"TTFT {ttft:,.0f} ms, TPOT {tpot:,.0f} ms, {live.num_running} running, {live.num_waiting} waiting"
        self._progress.update(self._task, completed=live.num_finished, description=text)
