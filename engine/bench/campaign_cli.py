"""`engine bench kernels | campaign | unpack | targets`: one GPU measured in one call, and what comes of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.bench import options as o
from engine.bench import targets as goals
from engine.bench.app import app
from engine.bench.bundle import bundles_in, read_result
from engine.bench.bundle import unpack as unpack_bundle
from engine.bench.running import print_sentences
from roofline import console
from roofline.errors import InputError
from roofline.files import write_whole

_INTERRUPTED_HINT = "Stopped. The same command goes on where it was."


@app.command()
def kernels(
    *,
    suite: Annotated[str | None, typer.Option(help="h200 or smoke; without it, what suits the device.")] = None,
    device: o.DeviceOption = "auto",
    seed: o.SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the rows and the machine as one JSON file.")] = None,
    as_json: o.JsonOption = False,
) -> None:
    """Time every kernel of the engine alone, against torch and the libraries there are, and the machine's ceilings.

    On a GPU by events over graph replays, on inputs larger than its cache; on a CPU the torch references.
    """
    import torch

    from engine.bench.kernel_cases import cases
    from engine.bench.kernel_sizes import SUITES
    from engine.bench.kernels import kernels_table, measure_kernels
    from engine.bench.machine import measure_machine
    from engine.execution.device import choose_device
    from roofline.formats import format_name

    where = choose_device(device)
    name = suite or ("h200" if where.type == "cuda" else "smoke")
    if name not in SUITES:
        raise InputError(f"suite {name!r} is not known; known are {', '.join(SUITES)}.")
    chosen = SUITES[name]
    chosen_cases = cases(chosen)
    with console.err.status("Measuring this machine ..."):
        machine = measure_machine([format_name(str(chosen.dtype).removeprefix("torch."))], torch.device(where))
    with console.progress("cases") as progress:
        task = progress.add_task("measuring", total=len(chosen_cases))
        rows = measure_kernels(chosen_cases, where, machine, seed, lambda _: progress.advance(task))
    found = {"hardware": machine.as_dict(), "kernels": [row.as_dict() for row in rows]}
    if out is not None:
        write_whole(out, json.dumps(found, indent=1, allow_nan=False) + "\n")
    if as_json:
        console.print_json(found)
        return
    console.out.print(kernels_table(rows))
    memory, rates = machine.memory_bytes_per_s / 1e9, machine.gemm_flop_per_s.items()
    products = ", ".join(f"{rate / 1e12:,.4g} TFLOP/s {dtype}" for dtype, rate in rates)
    print_sentences([f"Ceilings measured on {machine.name}: {memory:,.1f} GB/s, {products}."])


@app.command()
def campaign(
    *,
    preset: Annotated[str, typer.Option(help="h200, or cpu-smoke to see that everything runs.")] = "h200",
    minutes: Annotated[float, typer.Option(help="For all stages; what does not fit is left for the next call.")] = 8.0,
    seed: o.SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Folder for a bundle a stage and the summary.")] = Path("out/campaign"),
    as_json: o.JsonOption = False,
) -> None:
    """Measure one GPU in one call: ceilings, kernels, steps, throughput, serving at several loads, a rival engine.

    Each stage is a process of its own and leaves one .zip as soon as it is done; a stage that fails says so and the
    rest goes on. The same command again measures what is missing. `engine bench unpack` makes trace folders of it.
    """
    from engine.bench.campaign import SUMMARY_FILE, Campaign
    from engine.bench.presets import preset_named
    from engine.execution.device import choose_device

    plan = Campaign(preset_named(preset), out, 60 * minutes, seed)
    choose_device(plan.preset.device)  # a machine without it is told so once, not by every stage
    try:
        summary = plan.run(_tell)
    except KeyboardInterrupt:
        print_sentences([_INTERRUPTED_HINT])
        raise typer.Exit(o.INTERRUPTED) from None
    if as_json:
        console.print_json(summary)
        return
    _show(summary)
    print_sentences([f"Bundles and {SUMMARY_FILE} are in {out}; `engine bench unpack {out}` gives the traces."])


@app.command()
def unpack(
    source: Annotated[Path, typer.Argument(help="A campaign's folder, or one of its .zip files.")],
    *,
    out: Annotated[Path, typer.Option(help="Where the trace folders go, by stage.")] = Path("out/traces"),
) -> None:
    """Make trace folders of a campaign's bundles, for `calibration fit`, `calibration validate`, `simulator replay`."""
    for bundle in bundles_in(source):
        if read_result(bundle) is None:
            raise InputError(f"{bundle} is no bundle of a campaign; give one that `engine bench campaign` wrote.")
        for folder in unpack_bundle(bundle, out / bundle.stem):
            print_sentences([str(folder)])


@app.command()
def targets(
    *,
    measured: Annotated[Path | None, typer.Option(help="A campaign's summary.json, for the measured column.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="As the table of docs/benchmarking.md.")] = False,
) -> None:
    """Show what the engine should reach on one GPU, beside what a campaign measured."""
    figures = {} if measured is None else _figures_of(measured)
    if markdown:
        typer.echo(goals.markdown(figures), nl=False)
    else:
        console.out.print(goals.table(figures))


def _figures_of(path: Path) -> dict[str, float]:
    from engine.bench.campaign import target_figures

    try:
        summary = json.loads(path.read_text())
        figures = target_figures(summary)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is no summary of a campaign; give the summary.json that one wrote.") from None
    return figures


def _tell(result: dict[str, Any]) -> None:
    """A line a stage, on stderr, as soon as it ended."""
    kept = " (kept from an earlier run)" if result["kept"] else f" in {result['seconds']:.0f} s"
    console.err.print(f"{result['name']}: {result['status']}{kept}", highlight=False, markup=False)
    for sentence in result["sentences"]:
        console.err.print(f"  {sentence}", highlight=False, soft_wrap=True, markup=False)


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table

    stages = Table(title=f"Campaign {summary['campaign']}", title_justify="left")
    for column in ("stage", "status", "s", "what it says"):
        stages.add_column(column)
    for stage in summary["stages"]:
        last = stage["sentences"][-1] if stage["sentences"] else ""
        stages.add_row(stage["name"], stage["status"], f"{stage['seconds']:.0f}", console.escape(last))
    console.out.print(stages)
    hardware = summary["hardware"] or {"name": "unknown hardware"}
    if hardware["name"] == goals.hardware():
        from engine.bench.campaign import target_figures

        console.out.print(goals.table(target_figures(summary)))
    else:
        print_sentences([f"The targets are of one {goals.hardware()}; this was {hardware['name']}."])
