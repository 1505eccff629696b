"""`engine bench`: measure this engine on this machine and write traces that calibration and the simulator read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import Progress, TaskID

from engine.bench.grid import Grid
from engine.bench.load import DEFAULT_DURATION_S, DEFAULT_INPUT, DEFAULT_OUTPUT, DEFAULT_RATE_PER_S, Load
from engine.core.bench_result import bench_result
from engine.core.metrics import parse_slo
from engine.core.trace import BENCH_RESULT_FILE, Trace, check_writable, write_trace
from roofline import console
from roofline.errors import InputError

if TYPE_CHECKING:
    from engine.bench.attainment import RooflineShare
    from engine.bench.loop import Live
    from engine.bench.machine import Machine
    from engine.serving.llm import LLM

app = typer.Typer(help=__doc__, no_args_is_help=True)
INTERRUPTED = 130  # what shells report after Ctrl-C
DEFAULT = Grid()


def _listed(numbers: Sequence[int]) -> str:
    """Numbers as an option takes them."""
    return ",".join(map(str, numbers))


ModelOption = Annotated[str, typer.Option(help="smollm2-135m, a .gguf file, or a Hugging Face folder.")]
DtypeOption = Annotated[str, typer.Option(help="Number format: fp32, bf16 or fp16.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads; without it, all cores.")]
SeedOption = Annotated[int, typer.Option(help="Same seed, same requests and prompts.")]
OutOption = Annotated[Path, typer.Option(help="Folder for the trace; an older trace there is replaced.")]
FormatOption = Annotated[Literal["parquet", "csv"], typer.Option("--format", help="Of the trace's tables.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
BlocksOption = Annotated[int | None, typer.Option(help="KV blocks; few force preemptions.")]
BlockSizeOption = Annotated[int, typer.Option(help="Tokens a KV block holds.")]
BatchedOption = Annotated[int | None, typer.Option(help="Tokens a step may compute.")]


@app.callback()
def _root() -> None:
    """Measure this engine on this machine; every run writes a trace folder."""


@app.command()
def serve(
    *,
    model: ModelOption = "smollm2-135m",
    trace: Annotated[
        Path | None, typer.Option(help="Recorded requests: Azure, BurstGPT or Mooncake file, or a trace folder.")
    ] = None,
    request_rate: Annotated[
        float | None,
        typer.Option(
            help=f"Requests/s, inf: all at once. Default {DEFAULT_RATE_PER_S:g}; a trace keeps its own arrivals."
        ),
    ] = None,
    burstiness: Annotated[
        float, typer.Option(help="Shape of the gaps: 1 Poisson, below 1 bursty, inf constant spacing.")
    ] = 1.0,
    input_len: Annotated[
        str | None,
        typer.Option(
            help=f"Prompt tokens: 128, uniform:LOW:HIGH or lognormal:MEAN:CV[:LONGEST]. Default {DEFAULT_INPUT}."
        ),
    ] = None,
    output_len: Annotated[str | None, typer.Option(help=f"Output tokens, likewise. Default {DEFAULT_OUTPUT}.")] = None,
    num_requests: Annotated[int | None, typer.Option(help="Stop sending after this many.")] = None,
    duration: Annotated[
        float | None,
        typer.Option(help=f"Send for this many seconds, then finish. Default {DEFAULT_DURATION_S:g} without a count."),
    ] = None,
    max_concurrency: Annotated[
        int | None, typer.Option(help="Most requests in flight: the client holds the others back.")
    ] = None,
    slo: Annotated[str | None, typer.Option(help="Targets for goodput, in ms: 'ttft:500 tpot:50 e2el:10000'.")] = None,
    seed: SeedOption = 0,
    num_blocks: BlocksOption = None,
    block_size: BlockSizeOption = 16,
    max_num_seqs: Annotated[int | None, typer.Option(help="Requests that may run at once.")] = None,
    max_num_batched_tokens: BatchedOption = None,
    max_model_len: Annotated[int | None, typer.Option(help="Longest context; without it, the model's.")] = None,
    prefix_caching: Annotated[bool, typer.Option(help="Reuse the blocks of shared prefixes.")] = True,
    chunked_prefill: Annotated[bool, typer.Option(help="Split long prompts over steps.")] = True,
    async_scheduling: Annotated[bool, typer.Option(help="Schedule a step while the one before runs.")] = False,
    policy: Annotated[Literal["fcfs", "priority"], typer.Option(help="Who is served first.")] = "fcfs",
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
    load = Load(trace, input_len, output_len, request_rate, burstiness, num_requests, duration)
    workload = load.workload(seed)
    check_writable(out)
    settings = _settings(
        num_blocks=num_blocks, block_size=block_size, max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens, max_model_len=max_model_len,
        enable_prefix_caching=prefix_caching, enable_chunked_prefill=chunked_prefill,
        async_scheduling=async_scheduling, policy=policy,
    )  # fmt: skip
    llm = _load(model, dtype, threads, settings)
    from engine.bench import serve as bench
    from engine.bench import summary

    with console.err.status("Measuring this machine and warming up ..."):
        machine = _measure(llm)
        session = bench.prepare(llm, machine, workload, seed, max_concurrency)
    with console.progress("requests") as progress:
        task = progress.add_task("serving", total=len(workload))
        served = session.run(_Shower(progress, task))
    result = bench_result(served.trace, targets)
    texts = {BENCH_RESULT_FILE: json.dumps(result, indent=1, allow_nan=False) + "\n"}
    write_trace(out, served.trace, table_format, texts)
    share = _share(served.trace, llm, machine)
    if as_json:
        console.print_json(summary.serve_json(served, share, out))
    else:
        console.out.print(summary.latency_table(served))
        _print([*summary.serve_sentences(served, share, machine), f"Trace and {BENCH_RESULT_FILE} are in {out}."])
    if served.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def steps(
    *,
    model: ModelOption = "smollm2-135m",
    decode_batches: Annotated[str, typer.Option(help="Sequences that decode together.")] = _listed(
        DEFAULT.decode_batches
    ),
    contexts: Annotated[str, typer.Option(help="Tokens in the cache of each.")] = _listed(DEFAULT.contexts),
    chunks: Annotated[str, typer.Option(help="Tokens of a prefill chunk.")] = _listed(DEFAULT.chunks),
    histories: Annotated[str, typer.Option(help="Cached tokens before a chunk.")] = _listed(DEFAULT.histories),
    mixed_chunks: Annotated[str, typer.Option(help="Chunks beside a decode batch.")] = _listed(DEFAULT.mixed_chunks),
    repeats: Annotated[int, typer.Option(help="Runs of each point; the median one is kept.")] = DEFAULT.repeats,
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
    grid = Grid(
        **{name: _numbers(name, text) for name, text in (named | {"mixed_chunks": mixed_chunks}).items()},
        repeats=repeats,
    )
    check_writable(out)
    budget = max_num_batched_tokens or grid.least_budget
    settings = _settings(
        num_blocks=num_blocks or grid.num_blocks(block_size, budget), block_size=block_size,
        max_num_batched_tokens=budget, max_num_seqs=max(grid.decode_batches) + 1,
    )  # fmt: skip
    llm = _load(model, dtype, threads, settings)
    from engine.bench import steps as bench
    from engine.bench import summary

    with console.err.status("Measuring this machine and warming up ..."):
        machine = _measure(llm)
        session = bench.prepare(llm, machine, grid, seed)
    with console.progress("points") as progress:
        task = progress.add_task("measuring", total=grid.num_points)
        trace = session.run(lambda: progress.advance(task))
    write_trace(out, trace, table_format)
    interrupted, share = trace.meta["workload"]["interrupted"], _share(trace, llm, machine)
    if as_json:
        console.print_json(summary.steps_json(trace, share, out))
    else:
        console.out.print(summary.steps_table(trace.steps))
        _print([*summary.roofline_sentences(share, machine), f"The trace is in {out}."])
    if interrupted:
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


def _settings(**given: Any) -> dict[str, Any]:
    """The engine settings the user gave."""
    return {name: value for name, value in given.items() if value is not None}


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
        return LLM.load(model, dtype=dtype, num_threads=threads, **settings)


def _measure(llm: "LLM") -> "Machine":
    from engine.bench.machine import measure_machine
    from engine.bench.meta import weight_dtype

    return measure_machine([weight_dtype(llm)])


def _share(trace: Trace, llm: "LLM", machine: "Machine") -> "RooflineShare | None":
    from engine.bench.attainment import roofline_share
    from engine.bench.meta import weight_dtype

    return roofline_share(trace.steps, llm.model.shape, machine, weight_dtype(llm))


def _print(sentences: list[str]) -> None:
    for sentence in sentences:
        console.out.print(sentence, highlight=False, soft_wrap=True, markup=False)
