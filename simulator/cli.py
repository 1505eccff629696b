"""`simulator`: run a scenario's fleet, find its capacity, plan how many GPUs it needs."""

from pathlib import Path
from typing import Annotated

import typer

from calibration.profile import load as load_profile
from engine.core.trace import check_writable, read_trace, write_trace
from roofline import console
from roofline.errors import InputError
from simulator import run as runs
from simulator import scenario_file
from simulator.output import exports, tables
from simulator.planning import load_curve as curves
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
Seed = Annotated[int | None, typer.Option(help="In place of the scenario's.")]


@app.command()
def run(
    scenario: ScenarioFile,
    *,
    out: Annotated[Path, typer.Option(help="Folder for the trace; an older trace there is replaced.")],
    replicas: Replicas = None,
    rate: Rate = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Simulate the fleet as it is until its steady state is known; write the run as a trace folder.

    Beside the tables lies bench.json, in the format of `vllm bench serve`, marked as simulated.
    """
    asked = _read(scenario, {"fleet.replicas": replicas, "workload.request_rate": rate, "seed": seed})
    runs.check_folder(out)
    with console.progress("requests") as bar:
        task = bar.add_task("Simulating, at most", total=asked.run.max_requests)
        done = runs.run(asked, lambda count: bar.advance(task, count))
    runs.write(done, out)
    if as_json:
        console.print_json({"trace": str(out), **exports.run_json(done.result)})
        return
    tables.print_run(done.result)
    console.out.print(f"Wrote {out}.", highlight=False)


@app.command()
def plan(scenario: ScenarioFile, *, rate: Rate = None, seed: Seed = None, as_json: AsJson = False) -> None:
    """Find the fewest replicas that meet the targets at the offered load: cost, margin, reason."""
    asked = _read(scenario, {"workload.request_rate": rate, "seed": seed})
    found = make_plan(asked, _say)
    if as_json:
        console.print_json(exports.plan_json(found))
    else:
        tables.print_plan(found)


@app.command()
def capacity(scenario: ScenarioFile, *, replicas: Replicas = None, seed: Seed = None, as_json: AsJson = False) -> None:
    """Find the highest rate that the fleet as it is serves within the targets."""
    found = curves.capacity(_read(scenario, {"fleet.replicas": replicas, "seed": seed}), _say)
    if as_json:
        console.print_json(exports.capacity_json(found))
    else:
        tables.print_capacity(found)


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
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    console.print_json(scenario_file.json_schema())


def _read(path: Path, changes: dict[str, float | int | None]) -> Scenario:
    given = {name: value for name, value in changes.items() if value is not None}
    scenario = scenario_file.load(path)
    return scenario_file.with_changes(scenario, given, "the command line") if given else scenario


def _say(sentence: str) -> None:
    console.err.print(f"  {console.escape(sentence)}", style="dim", highlight=False)


def main() -> None:
    """Console entry point."""
    console.run(app, after_interrupt="Stopped; nothing was written.")


if __name__ == "__main__":
    main()
