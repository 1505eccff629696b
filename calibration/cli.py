"""`calibration`: measured steps into a step-time profile, and a profile held against another trace."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from calibration import profile as profiles
from calibration.accuracy import ErrorCell, predicted_seconds
from calibration.fit import fit as fit_model
from calibration.fitted import FittedStepTime
from calibration.measurements import CLOCKS, Measurements, join, read
from calibration.prior import roofline_of
from calibration.report import ReportInput, render
from calibration.validate import validate as validate_model
from roofline import console
from roofline.errors import InputError
from roofline.files import write_whole

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Turn measured steps into a step-time model with a known error, and hold it against other measurements.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Report = Annotated[Path | None, typer.Option(help="Also write a one-file HTML report with figures.")]
Clock = Annotated[str, typer.Option(help="Which time to take: wall_s (the whole iteration) or device_s.")]


@app.command()
def fit(
    traces: Annotated[list[Path], typer.Argument(help="Trace folders, or tables of steps (.parquet, .csv).")],
    *,
    out: Annotated[Path, typer.Option(help="The profile to write (JSON).")],
    clock: Clock = "wall_s",
    model: Annotated[str | None, typer.Option(help="Model, where the trace does not say: its shape helps.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Accelerator of the catalogue, where the trace does not say.")] = None,
    as_json: AsJson = False,
    report: Report = None,
) -> None:
    """Fit a step-time profile to measured traces and print its held-out errors.

    A roofline of the model (from the trace's meta.json, or --model and --gpu) stands in for what was not measured.
    """
    measurements = join([_measured(trace, clock) for trace in traces])
    told = {"model": model, "hardware": gpu}
    measurements = replace(measurements, meta={key: value for key, value in told.items() if value} | measurements.meta)
    prior = roofline_of(measurements.meta, model, gpu)
    profile = fit_model(measurements, datetime.now(UTC), prior)
    if report:
        _write_report(report, profile, measurements, profile.errors, "")
    profiles.save(profile, out)
    if as_json:
        console.print_json({"profile": str(out), **profiles.as_json(profile)})
        return
    _print_profile(profile)
    console.out.print(_error_table(profile.errors))
    console.out.print(f"Wrote {out}. Check it on another trace: calibration validate {out} TRACE", soft_wrap=True)


@app.command()
def validate(
    profile: Annotated[Path, typer.Argument(help="A profile, as `calibration fit` writes it.")],
    trace: Annotated[Path, typer.Argument(help="A trace it was not fitted on.")],
    *,
    transfer: Annotated[bool, typer.Option("--transfer", help="Allow other hardware, model or parallelism.")] = False,
    as_json: AsJson = False,
    report: Report = None,
) -> None:
    """Compare a profile's step times with those measured in another trace."""
    fitted = profiles.load(profile)
    found = validate_model(fitted, _read(trace, fitted.provenance.clock), transfer)
    if report:
        _write_report(report, fitted, found.measurements, found.errors, trace.name)
    if as_json:
        console.print_json(found.as_json())
        return
    console.out.print(
        f"{len(found.measurements):,} steps, {found.in_range:.0%} inside the calibrated range; {found.badge}."
    )
    _print_notes(found.measurements.unusable, found.notes)
    console.out.print(_error_table(found.errors))


@app.command("list")
def list_profiles(*, as_json: AsJson = False) -> None:
    """List the profiles that come with the project, with their age and held-out error."""
    now = datetime.now(UTC)
    rows = [_listed(name, profile, now) for name, profile in profiles.shipped().items()]
    if as_json:
        console.print_json({"profiles": rows})
        return
    table = Table(Column("profile", overflow="fold"), "model", "hardware", "TP", "steps", "age", "held-out MAPE")
    for row in rows:
        error = "" if row["held_out_mape"] is None else f"{row['held_out_mape']:.1%}"
        cells = (row["name"], row["model"], row["hardware"], row["tensor_parallel"], f"{row['steps']:,}")
        table.add_row(*("" if cell is None else str(cell) for cell in cells), f"{row['age_days']} d", error)
    console.out.print(table if rows else "No profile is shipped; write one with `calibration fit`.")


def _read(trace: Path, clock: str) -> Measurements:
    if clock not in CLOCKS:
        raise InputError(f"--clock is {clock!r}; choose {' or '.join(CLOCKS)}.")
    return read(trace, clock)


def _measured(trace: Path, clock: str) -> Measurements:
    found = _read(trace, clock)
    if found.meta.get("simulated"):
        raise InputError(f"{trace} is a simulated trace, and a fit would give its model back; take a measured one.")
    return found


def _listed(name: str, profile: FittedStepTime, now: datetime) -> dict[str, str | int | float | None]:
    held_out = profile.errors[0] if profile.errors else None
    return {
        "name": name,
        **profile.provenance.identity,
        "steps": profile.rows.used,
        "age_days": (now - datetime.fromisoformat(profile.provenance.fitted_at)).days,
        "held_out_mape": held_out.mape if held_out else None,
    }


def _write_report(
    path: Path, profile: FittedStepTime, measurements: Measurements, errors: tuple[ErrorCell, ...], other_trace: str
) -> None:
    mape = errors[0].mape
    content = ReportInput(
        title=f"Validation on {other_trace}" if other_trace else "Calibration",
        summary=f"Mean absolute error of a step: {mape:.1%} ({errors[0].method}, {errors[0].n:,} steps).",
        points="Steps of another trace." if other_trace else "The steps it was fitted on, outliers included.",
        profile=profile,
        measurements=measurements,
        predicted=predicted_seconds(profile, measurements),
        errors=errors,
    )
    write_whole(path, render(content))


def _print_profile(profile: FittedStepTime) -> None:
    origin, rows = profile.provenance, profile.rows
    console.out.print(f"{origin.subject}: {rows.used:,} steps, join {profile.form.join}, scope {profile.form.scope}.")
    if rows.outliers:
        console.out.print(f"{rows.outliers} outliers left out ({rows.outlier_time_share:.1%} of the time).")
    _print_notes(rows.unusable, profile.notes)


def _print_notes(unusable: dict[str, int], notes: tuple[str, ...]) -> None:
    for reason, count in unusable.items():
        console.out.print(f"{count} rows unusable: {reason}.")
    for note in notes:
        console.out.print(console.escape(note), style="yellow", soft_wrap=True)


def _error_table(errors: tuple[ErrorCell, ...]) -> Table:
    """Whole regions only; the cells by batch and context stand in the profile, in --json and in the report."""
    table = Table("held out", "passes", "steps", "MAPE", "bias", "total time")
    for cell in errors:
        if not cell.cell:
            shares = (f"{cell.mape:.1%}", f"{cell.bias:+.1%}", f"{cell.total_error:+.1%}")
            table.add_row(cell.method, cell.region, f"{cell.n:,}", *shares)
    return table


def main() -> None:
    """Console entry point."""
    console.run(app)


if __name__ == "__main__":
    main()
