"""`simulator`: run a scenario's fleet, find its capacity, plan how many GPUs it needs."""

from pathlib import Path
from typing import Annotated

import typer

from calibration.profile import load as load_profile
from engine.core.metrics import parse_slo
from engine.core.trace import check_writable, read_trace, write_trace
from roofline import console
from roofline.errors import InputError
from simulator import grid as grids
from simulator import run as runs
from simulator import scenario_file
from simulator import sweep as sweeps
from simulator.grid import Question
from simulator.output import exports, pages, tables
from simulator.output.attribution import WHOLES, attribution
from simulator.output.formats.files import FORMATS, check_name
from simulator.output.formats.files import export as write_as
from simulator.output.report import plan_sections, write_report
from simulator.output.wording import plan_sentence
from simulator.parallel import Workers
from simulator.planning import load_curve as curves
from simulator.planning.capacity import SEEDS, Effort
from simulator.planning.capacity import capacity as find_capacity
from simulator.planning.compare import SEEDS as COMPARED
from simulator.planning.compare import compare as compare_scenarios
from simulator.planning.plan import plan as make_plan
from simulator.replay import ReplayOptions
from simulator.replay import replay as replay_trace
from simulator.scenario import Scenario

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Simulate a fleet that serves an LLM, and find how many GPUs it needs. A scenario file says what to serve.",
)

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO.yaml", help="A scenario file; examples/ has some.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Rate = Annotated[float | None, typer.Option(help="Requests/s of the fleet, in place of the scenario's.")]
Replicas = Annotated[int | None, typer.Option(help="Replicas, in place of the scenario's fleet.replicas.")]
Jobs = Annotated[int, typer.Option(help="Processes to work with; 0: one a core.")]
Report = Annotated[Path | None, typer.Option(help="Also write one HTML file with figures; it opens offline.")]
Seed = Annotated[int | None, typer.Option(help="In place of the scenario's.")]


@app.command()
def run(
    scenario: ScenarioFile,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the trace; an older trace there is replaced. Without it only figures are kept."),
    ] = None,
    report: Report = None,
    replicas: Replicas = None,
    rate: Rate = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Simulate the fleet as it is until its steady state is known; write the run as a trace folder.

    Beside the tables lies bench.json, in the format of `vllm bench serve`, marked as simulated. A trace grows with the
    run; without --out and --report, memory does not grow with tokens and steps.
    """
    asked = _read(scenario, {"fleet.replicas": replicas, "workload.request_rate": rate, "seed": seed})
    if out is not None:
        runs.check_folder(out)
    with console.progress("requests") as bar:
        task = bar.add_task("Simulating, at most", total=asked.run.max_requests)
        if out is None and report is None:
            seen = runs.overview(asked, lambda count: bar.advance(task, count))
        else:
            done = runs.run(asked, lambda count: bar.advance(task, count))
    if out is None and report is None:
        _show_overview(seen, as_json)
    else:
        _show_run(done, (out, report), as_json)


def _show_overview(seen: runs.Overview, as_json: bool) -> None:
    if as_json:
        console.print_json({**exports.run_json(seen.result), "itl_s": seen.itl_s})
        return
    tables.print_run(seen.result)
    if seen.itl_s is not None:
        tables.print_gaps(seen.itl_s)


def _show_run(done: runs.Run, paths: tuple[Path | None, Path | None], as_json: bool) -> None:
    """Write the run's trace and report where a path is given, then print it."""
    out, report = paths
    if out is not None:
        runs.write(done, out)
    steady = runs.measured(done)
    found = [attribution(steady, metric, done.result.percentile) for metric in WHOLES]
    known = [one for one in found if one is not None]
    if report is not None:
        pages.write_run(report, done.result, steady)
    if as_json:
        parts = {one.metric: exports.attribution_json(one) for one in known}
        written = {name: str(path) for name, path in (("trace", out), ("report", report)) if path is not None}
        console.print_json({**written, **exports.run_json(done.result), "attribution": parts})
        return
    tables.print_run(done.result)
    tables.print_attribution(known)
    _tell_written(out, report)


@app.command()
def plan(
    scenario: ScenarioFile, *, rate: Rate = None, seed: Seed = None, report: Report = None, as_json: AsJson = False
) -> None:
    """Find the fewest replicas that meet the targets at the offered load: cost, margin, reason."""
    asked = _read(scenario, {"workload.request_rate": rate, "seed": seed})
    found = make_plan(asked, _say)
    if report is not None:
        write_report(report, f"{asked.name}: plan", plan_sentence(found), plan_sections(found))
    if as_json:
        console.print_json(exports.plan_json(found))
    else:
        tables.print_plan(found)
        _tell_written(report)


@app.command()
def capacity(
    scenario: ScenarioFile,
    *,
    replicas: Replicas = None,
    seed: Seed = None,
    seeds: Annotated[
        int, typer.Option(help="Independent draws of arrivals and lengths; their spread is the interval.")
    ] = SEEDS,
    jobs: Jobs = 1,
    doubt: Annotated[
        bool, typer.Option(help="Search again with slower and faster step times, by how far they may be off.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Find the highest rate that the fleet as it is serves within the targets, with its interval."""
    asked = _read(scenario, {"fleet.replicas": replicas, "seed": seed})
    found = find_capacity(asked, _say, Effort(seeds, Workers(jobs), doubt))
    if as_json:
        console.print_json(exports.capacity_json(found))
    else:
        tables.print_capacity(found)


@app.command()
def sweep(
    scenario: ScenarioFile,
    *,
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD=VALUES",
            help="A field and its values: engine.max_num_seqs=64,128 or "
            "workload.request_rate=10..50:5 (five, evenly spaced). Several give every combination.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers; those already there are not asked for again.")],
    ask: Annotated[Question, typer.Option(help="What to ask each scenario.")] = "run",
    jobs: Jobs = 0,
    ray: Annotated[
        bool, typer.Option("--ray", help="Work on a Ray cluster: RAY_ADDRESS's, or one on this machine.")
    ] = False,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Ask the same of a grid of scenarios; write sweep.parquet. A sweep that was stopped goes on where it was."""
    asked = scenario_file.load(scenario)
    points = grids.grid(asked, [grids.parse_axis(text) for text in vary], ask)
    workers = Workers(jobs, "ray" if ray else "processes")
    with console.progress("points") as bar:
        task = bar.add_task(f"Sweeping ({ask})", total=len(points))
        try:
            table = sweeps.sweep(points, ask, out, workers, lambda count: bar.advance(task, count))
        except KeyboardInterrupt:
            _say(f"{sweeps.num_stored(points, out)} of {len(points)} points are stored; the same command goes on.")
            raise
    varied = list(points[0].values)
    if report is not None:
        pages.write_sweep(report, pages.SweepTable(table, varied, ask), asked)
    if as_json:
        console.print_json(exports.sweep_json(table, varied, out))
    else:
        tables.print_sweep(table, varied, ask)
        _tell_written(out / sweeps.RESULT_FILE, report)


@app.command()
def compare(
    scenarios: Annotated[
        list[Path], typer.Argument(metavar="FIRST.yaml OTHER.yaml...", help="Two scenario files or more.")
    ],
    *,
    seeds: Annotated[
        int, typer.Option(help="Independent draws of arrivals and lengths, the same for each scenario.")
    ] = COMPARED,
    jobs: Jobs = 1,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Simulate scenarios under the same seeds; show their figures and how sure the differences from the first are."""
    asked = [scenario_file.load(path) for path in scenarios]
    with console.progress("runs") as bar:
        task = bar.add_task("Comparing", total=len(asked) * seeds)
        found = compare_scenarios(asked, seeds, Workers(jobs), lambda count: bar.advance(task, count))
    if report is not None:
        pages.write_comparison(report, found)
    if as_json:
        console.print_json(exports.compare_json(found))
    else:
        tables.print_comparison(found)
        _tell_written(report)


@app.command()
def load(scenario: ScenarioFile, *, replicas: Replicas = None, seed: Seed = None, as_json: AsJson = False) -> None:
    """Show latency against offered load, through the knee, for the fleet as it is."""
    found = curves.load_curve(_read(scenario, {"fleet.replicas": replicas, "seed": seed}), _say)
    if as_json:
        console.print_json(exports.curve_json(found))
    else:
        tables.print_curve(found)


@app.command()
def replay(
    trace: Annotated[Path, typer.Argument(help="A measured trace folder.")],
    *,
    profile: Annotated[Path, typer.Option(help="Step times: what `calibration fit` wrote.")],
    max_concurrency: Annotated[
        int | None, typer.Option(help="Most requests in flight, in place of the trace's.")
    ] = None,
    transfer: Annotated[bool, typer.Option("--transfer", help="Allow other hardware, model or parallelism.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the simulated trace.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a measured trace's requests again under the profile's step times; show predicted beside measured."""
    if out is not None:
        check_writable(out)
        if out.resolve() == trace.resolve():
            raise InputError(f"--out is {out}, the measured trace itself; choose a new folder for the simulated one.")
    measured = read_trace(trace)
    with console.progress("requests") as bar:
        task = bar.add_task("Replaying", total=len(measured.requests))
        options = ReplayOptions(max_concurrency, transfer, lambda count: bar.advance(task, count))
        found = replay_trace(measured, load_profile(profile), options)
    if out is not None:
        write_trace(out, found.trace)
    if as_json:
        console.print_json(found.as_json())
    else:
        tables.print_replay(found)


@app.command()
def export(
    trace: Annotated[Path, typer.Argument(help="A trace folder, simulated or measured.")],
    *,
    to: Annotated[list[str], typer.Option(metavar="FORMAT", help=f"One or several of {', '.join(FORMATS)}.")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    slo: Annotated[
        str | None, typer.Option(help="Targets in ms for goodput: 'ttft:500 tpot:50'; else those of the scenario.")
    ] = None,
) -> None:
    """Write a trace in other tools' formats: benchmark results, a timeline, counters, CSV."""
    chosen = [check_name(name) for name in to]
    found = read_trace(trace)
    targets = runs.slo_of(found) if slo is None else parse_slo(slo)
    for name, form in zip(to, chosen, strict=True):
        write_as(found, name, out / form.file, targets)
        console.out.print(f"Wrote {out / form.file}: {form.about}.", highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    console.print_json(scenario_file.json_schema())


def _read(path: Path, changes: dict[str, float | int | None]) -> Scenario:
    given = {name: value for name, value in changes.items() if value is not None}
    scenario = scenario_file.load(path)
    return scenario_file.with_changes(scenario, given, "the command line") if given else scenario


def _say(sentence: str) -> None:
    console.err.print(f"  {console.escape(sentence)}", style="dim", highlight=False)


def _tell_written(*paths: Path | None) -> None:
    for path in paths:
        if path is not None:
            console.out.print(f"Wrote {path}.", highlight=False)


def main() -> None:
    """Console entry point."""
    console.run(app, after_interrupt="Stopped; nothing is half-written.")


if __name__ == "__main__":
    main()
