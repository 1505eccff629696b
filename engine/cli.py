"""The command line `engine`: serve a real model on this machine, and measure it."""

import os
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from engine.bench import options as o
from engine.bench.cli import app as bench_app
from engine.core.sampling_params import SamplingParams
from roofline import console
from roofline.errors import InputError

if TYPE_CHECKING:
    from engine.serving.llm import LLM

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Serve a real model on this machine: let it answer, and measure how fast it serves.",
)
app.add_typer(bench_app, name="bench")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask; `-` reads it from standard input.")],
    *,
    model: o.ModelOption = o.DEFAULT_MODEL,
    load_format: o.LoadFormatOption = "auto",
    system: Annotated[str | None, typer.Option(help="System prompt; without one the model's own.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is, without the chat format.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest tokens; 0: from all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that hold this probability.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Draw from tokens of this fraction of the likeliest one.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    device: o.DeviceOption = "auto",
    dtype: o.DtypeOption = None,
    kv_cache_dtype: o.KvDtypeOption = "auto",
    gpu_memory_utilization: o.UtilizationOption = 0.9,
    enforce_eager: Annotated[bool, typer.Option("--enforce-eager", help="Run a GPU without captured graphs.")] = False,
    async_scheduling: o.AsyncOption = None,
    threads: o.ThreadsOption = None,
) -> None:
    """Answer a prompt, the text streaming to standard output and the speed going to standard error."""
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stop=tuple(stop or ()),
    )
    text = _text(sys.stdin.buffer.read() if prompt == "-" else os.fsencode(prompt))
    if not text:
        raise InputError("the prompt is empty; give some text.")
    if raw and system is not None:
        raise InputError("--system belongs to the chat format, which --raw leaves out; drop one of the two.")
    settings = {
        "load_format": load_format, "device": device, "dtype": dtype, "kv_cache_dtype": kv_cache_dtype,
        "gpu_memory_utilization": gpu_memory_utilization, "enforce_eager": enforce_eager, "num_threads": threads,
        **({} if async_scheduling is None else {"async_scheduling": async_scheduling}),
    }  # fmt: skip
    from engine.serving.llm import LLM

    with console.err.status(f"Loading {Path(model).name} ..."):
        llm = LLM.load(model, **settings)
    tokenizer = llm.text_tokenizer
    messages = [] if system is None else [{"role": "system", "content": system}]
    prompt_ids = tokenizer.encode(text) if raw else tokenizer.chat([*messages, {"role": "user", "content": text}])
    console.err.print(_answer(llm, prompt_ids, params), highlight=False, soft_wrap=True)


def _text(prompt: bytes) -> str:
    """The prompt, which arguments and standard input may give in any bytes."""
    try:
        return prompt.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt is not UTF-8 text ({error.reason} at byte {error.start}); convert it.") from None


def _answer(llm: "LLM", prompt_ids: list[int], params: SamplingParams) -> str:
    """Stream the answer to standard output; say how fast it came."""
    started = perf_counter()
    stamps, num_tokens, reason = [started], 0, None
    for part in llm.stream(prompt_ids, params):
        stamps.append(perf_counter())
        num_tokens, reason = part.num_tokens, part.finish_reason
        sys.stdout.write(part.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
    first, last = stamps[1], stamps[-1]
    speed = f", then {(num_tokens - 1) / (last - first):.1f} tokens/s" if last > first else ""
    return (
        f"{len(prompt_ids)} prompt tokens, first text after {first - started:.2f} s; {num_tokens} tokens{speed}; "
        f"ended by {reason}"
    )


def main() -> None:
    """Run the command line."""
    console.run(app)


if __name__ == "__main__":
    main()
