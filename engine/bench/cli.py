"""`engine bench`: measure this engine on this machine and write traces that calibration and the simulator read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import Progress, TaskID

from engine.bench.grid import Grid
from engine.bench.load import DEFAULT_DURATION_S, DEFAULT_INPUT, DEFAULT_OUTPUT, DEFAULT_RATE_PER_S, Load
from engine.core.bench_result import bench_result
from engine.core.metrics import Slo, parse_slo
from engine.core.trace import BENCH_RESULT_FILE, Trace, check_writable, write_trace
from roofline import console
from roofline.errors import InputError

if TYPE_CHECKING:
    from engine.bench.attainment import RooflineShare
    from engine.bench.loop import Live
    from engine.bench.machine import Machine
    from engine.bench.serve import Session
    from engine.bench.steps import GridSession
    from engine.serving.llm import LLM

app = typer.Typer(no_args_is_help=True, help="Measure this engine on this machine; every run writes a trace folder.")
INTERRUPTED = 130  # what shells report after Ctrl-C


def listed(name: str) -> str:
    """A list of the default grid as an option takes it."""
    return ",".join(map(str, getattr(Grid(), name)))


ModelOption = Annotated[str, typer.Option(help="smollm2-135m, a .gguf file, or a Hugging Face folder.")]
DtypeOption = Annotated[str, typer.Option(help="Number format: fp32, bf16 or fp16.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads; without it, all cores.")]
SeedOption = Annotated[int, typer.Option(help="Same seed, same requests and prompts.")]
OutOption = Annotated[Path, typer.Option(help="Folder for the trace; an older trace there is replaced.")]
FormatOption = Annotated[Literal["parquet", "csv"], typer.Option("--format", help="Of the trace's tables.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]

TraceOption = Annotated[
    Path | None, typer.Option(help="Recorded requests: Azure, BurstGPT or Mooncake file, or a trace folder.")
]
RateOption = Annotated[
    float | None,
    typer.Option(help=f"Requests/s, inf: all at once. Default {DEFAULT_RATE_PER_S:g}; a trace keeps its own arrivals."),
]
BurstinessOption = Annotated[
    float, typer.Option(help="Shape of the gaps: 1 Poisson, below 1 bursty, inf constant spacing.")
]
InputOption = Annotated[
    str | None,
    typer.Option(help=f"Prompt tokens: 128, uniform:LOW:HIGH or lognormal:MEAN:CV[:LONGEST]. Default {DEFAULT_INPUT}."),
]
OutputOption = Annotated[str | None, typer.Option(help=f"Output tokens, likewise. Default {DEFAULT_OUTPUT}.")]
CountOption = Annotated[int | None, typer.Option(help="Stop sending after this many.")]
DurationOption = Annotated[
    float | None,
    typer.Option(help=f"Send for this many seconds, then finish. Default {DEFAULT_DURATION_S:g} without a count."),
]
ConcurrencyOption = Annotated[
    int | None, typer.Option(help="Most requests in flight: the client holds the others back.")
]
SloOption = Annotated[str | None, typer.Option(help="Targets for goodput, in ms: 'ttft:500 tpot:50 e2el:10000'.")]

BlocksOption = Annotated[int | None, typer.Option(help="KV blocks; few force preemptions.")]
BlockSizeOption = Annotated[int, typer.Option(help="Tokens a KV block holds.")]
SeqsOption = Annotated[int | None, typer.Option(help="Requests that may run at once.")]
BatchedOption = Annotated[int | None, typer.Option(help="Tokens a step may compute.")]
ContextOption = Annotated[int | None, typer.Option(help="Longest context; without it, the model's.")]
PrefixOption = Annotated[bool, typer.Option(help="Reuse the blocks of shared prefixes.")]
ChunkedOption = Annotated[bool, typer.Option(help="Split long prompts over steps.")]
AsyncOption = Annotated[bool, typer.Option(help="Schedule a step while the one before runs.")]
PolicyOption = Annotated[Literal["fcfs", "priority"], typer.Option(help="Who is served first.")]


@dataclass(frozen=True, slots=True)
class Output:
    """Where a result goes."""

    folder: Path
    table_format: Literal["parquet", "csv"]
    as_json: bool


@app.command()
def serve(
    *,
    model: ModelOption = "smollm2-135m",
    trace: TraceOption = None,
    request_rate: RateOption = None,
    burstiness: BurstinessOption = 1.0,
    input_len: InputOption = None,
    output_len: OutputOption = None,
    num_requests: CountOption = None,
    duration: DurationOption = None,
    max_concurrency: ConcurrencyOption = None,
    slo: SloOption = None,
    seed: SeedOption = 0,
    num_blocks: BlocksOption = None,
    block_size: BlockSizeOption = 16,
    max_num_seqs: SeqsOption = None,
    max_num_batched_tokens: BatchedOption = None,
    max_model_len: ContextOption = None,
    prefix_caching: PrefixOption = True,
    chunked_prefill: ChunkedOption = True,
    async_scheduling: AsyncOption = False,
    policy: PolicyOption = "fcfs",
    dtype: DtypeOption = "fp32",
    threads: ThreadsOption = None,
    out: OutOption = Path("out/bench-serve"),
    table_format: FormatOption = "parquet",
    as_json: JsonOption = False,
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
        "async_scheduling": async_scheduling, "policy": policy,
    }  # fmt: skip
    llm = _load(model, dtype, threads, settings)
    from engine.bench.serve import prepare

    with console.err.status("Warming up ..."):
        session = prepare(llm, workload, seed, max_concurrency)
    _serve(session, targets, Output(out, table_format, as_json))


def _serve(session: "Session", targets: Slo | None, output: Output) -> None:
    """Run a session that is ready, write what it measured, and show it."""
    from engine.bench import summary

    machine = _measure(session.llm)
    with console.progress("requests") as progress:
        task = progress.add_task("serving", total=len(session.workload))
        served = session.run(machine, _Shower(progress, task))
    texts = {BENCH_RESULT_FILE: json.dumps(bench_result(served.trace, targets), indent=1, allow_nan=False) + "\n"}
    write_trace(output.folder, served.trace, output.table_format, texts)
    share = _share(served.trace, session.llm, machine)
    if output.as_json:
        console.print_json(summary.serve_json(served, share, output.folder))
    else:
        console.out.print(summary.latency_table(served))
        _print(summary.serve_sentences(served, share, machine))
        _print([f"Trace and {BENCH_RESULT_FILE} are in {output.folder}."])
    if served.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def steps(
    *,
    model: ModelOption = "smollm2-135m",
    decode_batches: Annotated[str, typer.Option(help="Sequences that decode together.")] = listed("decode_batches"),
    contexts: Annotated[str, typer.Option(help="Tokens in the cache of each.")] = listed("contexts"),
    chunks: Annotated[str, typer.Option(help="Tokens of a prefill chunk.")] = listed("chunks"),
    histories: Annotated[str, typer.Option(help="Cached tokens before a chunk.")] = listed("histories"),
    mixed_chunks: Annotated[str, typer.Option(help="Chunks beside a decode batch.")] = listed("mixed_chunks"),
    repeats: Annotated[int, typer.Option(help="Runs of each point; the median one is kept.")] = Grid().repeats,
    seed: SeedOption = 0,
    block_size: BlockSizeOption = 16,
    num_blocks: BlocksOption = None,
    max_num_batched_tokens: BatchedOption = None,
    dtype: DtypeOption = "fp32",
    threads: ThreadsOption = None,
    out: OutOption = Path("out/bench-steps"),
    table_format: FormatOption = "parquet",
    as_json: JsonOption = False,
) -> None:
    """Time a grid of batch compositions, each with real keys and values in the cache; write a trace of steps.

    Lists are numbers with commas. Ctrl-C keeps the points measured so far.
    """
    named = {"decode_batches": decode_batches, "contexts": contexts, "chunks": chunks, "histories": histories}
    lists = {name: _numbers(name, text) for name, text in (named | {"mixed_chunks": mixed_chunks}).items()}
    grid = Grid(**lists, repeats=repeats)
    check_writable(out)
    budget = grid.least_budget if max_num_batched_tokens is None else max_num_batched_tokens
    settings = {
        "num_blocks": grid.num_blocks(block_size, budget) if num_blocks is None else num_blocks,
        "block_size": block_size,
        "max_num_batched_tokens": budget,
        "max_num_seqs": max(grid.decode_batches) + 1,
    }
    llm = _load(model, dtype, threads, settings)
    from engine.bench.steps import prepare

    with console.err.status("Warming up ..."):
        session = prepare(llm, grid, seed)
    _measure_grid(session, Output(out, table_format, as_json))


def _measure_grid(session: "GridSession", output: Output) -> None:
    """Run a grid that is ready, write what it measured, and show it."""
    from engine.bench import summary

    machine = _measure(session.llm)
    with console.progress("points") as progress:
        task = progress.add_task("measuring", total=session.grid.num_points)
        trace = session.run(machine, lambda: progress.advance(task))
    write_trace(output.folder, trace, output.table_format)
    share = _share(trace, session.llm, machine)
    if output.as_json:
        console.print_json(summary.steps_json(trace, share, output.folder))
    else:
        console.out.print(summary.steps_table(trace.steps))
        _print([*summary.roofline_sentences(share, machine), f"The trace is in {output.folder}."])
    if trace.meta["workload"]["interrupted"]:
        _print(["Interrupted: the trace holds the points measured before."])
        raise typer.Exit(INTERRUPTED)


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


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """A list of whole numbers as typed."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        option = name.replace("_", "-")
        raise InputError(f"--{option} is {text!r}; write whole numbers with commas, as in 1,4,16.") from None


def _load(model: str, dtype: str, threads: int | None, settings: dict[str, Any]) -> "LLM":
    from engine.serving.llm import LLM

    with console.err.status(f"Loading {Path(model).name} ..."):
        given = {name: value for name, value in settings.items() if value is not None}
        return LLM.load(model, dtype=dtype, num_threads=threads, **given)


def _measure(llm: "LLM") -> "Machine":
    from engine.bench.machine import measure_machine
    from engine.bench.meta import weight_dtype

    with console.err.status("Measuring this machine ..."):
        return measure_machine([weight_dtype(llm)])


def _share(trace: Trace, llm: "LLM", machine: "Machine") -> "RooflineShare | None":
    from engine.bench.attainment import roofline_share
    from engine.bench.meta import weight_dtype

    return roofline_share(trace.steps, llm.model.shape, machine, weight_dtype(llm))


def _print(sentences: list[str]) -> None:
    for sentence in sentences:
        console.out.print(sentence, highlight=False, soft_wrap=True, markup=False)
