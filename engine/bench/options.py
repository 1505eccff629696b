"""The options that several commands of `engine bench` share, with their help texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from engine.bench.load import DEFAULT_DURATION_S, DEFAULT_INPUT, DEFAULT_OUTPUT, DEFAULT_RATE_PER_S
from roofline.errors import InputError

INTERRUPTED = 130  # what shells report after Ctrl-C
DEFAULT_MODEL = "smollm2-135m"

ModelOption = Annotated[
    str, typer.Option(help="smollm2-135m, a .gguf file, a Hugging Face folder; a catalogue name for dummy weights.")
]
DeviceOption = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]
LoadFormatOption = Annotated[str, typer.Option(help="auto, safetensors, gguf, or dummy: random weights of its shape.")]
DtypeOption = Annotated[
    str | None, typer.Option(help="Number format: fp32, bf16 or fp16; without it, what suits the device.")
]
KvDtypeOption = Annotated[str, typer.Option(help="Number format of the KV cache: auto, as the weights; fp8 on a GPU.")]
UtilizationOption = Annotated[float, typer.Option(help="Part of a GPU's memory that may be used.")]
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
    typer.Option(help=f"Prompt tokens: 128, uniform:LOW:HIGH or lognormal:MEAN:CV:LONGEST. Default {DEFAULT_INPUT}."),
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
TemperatureOption = Annotated[float, typer.Option(help="Of the sampling; 0 always takes the likeliest token.")]

BlocksOption = Annotated[int | None, typer.Option(help="KV blocks; few force preemptions.")]
BlockSizeOption = Annotated[int, typer.Option(help="Tokens a KV block holds.")]
SeqsOption = Annotated[int | None, typer.Option(help="Requests that may run at once.")]
BatchedOption = Annotated[int | None, typer.Option(help="Tokens a step may compute.")]
ContextOption = Annotated[int | None, typer.Option(help="Longest context; without it, the model's.")]
PrefixOption = Annotated[bool, typer.Option(help="Reuse the blocks of shared prefixes.")]
ChunkedOption = Annotated[bool, typer.Option(help="Split long prompts over steps.")]
AsyncOption = Annotated[
    bool | None,
    typer.Option(help="Schedule a step while the one before runs; without it, what suits the device."),
]
PolicyOption = Annotated[Literal["fcfs", "priority"], typer.Option(help="Who is served first.")]


@dataclass(frozen=True, slots=True)
class Output:
    """Where a result goes."""

    folder: Path
    table_format: Literal["parquet", "csv"]
    as_json: bool


def numbers(name: str, text: str) -> tuple[int, ...]:
    """A list of whole numbers as typed; an empty text is none."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        option = name.replace("_", "-")
        raise InputError(f"--{option} is {text!r}; write whole numbers with commas, as in 1,4,16.") from None
