"""Whatever goes wrong in a command ends in a known exit code and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from roofline import console
from roofline.errors import TraceError
from tests.source_tree import ROOT

app = typer.Typer()


@pytest.mark.parametrize("package", ["roofline", "calibration", "simulator", "engine"])
def test_every_command_line_runs_as_a_module(package):
    done = subprocess.run(
        [sys.executable, "-m", f"{package}.cli", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@app.command()
def work(number: int = 0) -> None:
    match number:
        case 1:
            raise TraceError("column [wall_s] is missing")
        case 2:
            raise KeyboardInterrupt
        case 3:
            raise typer.Exit(5)
        case 5:
            Path("/nowhere/at/all").read_text()
        case 6:
            raise TraceError("row 1 is \x1b[31m\x00")
        case 4:
            raise ZeroDivisionError
    typer.echo(f"worked on {number}")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        ([], 0, "worked on 0"),
        (["--number", "1"], 2, "Error: column [wall_s] is missing"),
        (["--number", "2"], 130, "What there is, is in out/."),
        (["--number", "3"], 5, ""),
        (["--number", "5"], 2, "Error: /nowhere/at/all: No such file or directory; check the path"),
        (["--number", "6"], 2, "Error: row 1 is \N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"),
        (["--number", "three"], 2, "valid integer"),
        (["--no-such-option"], 2, "--no-such-option"),
        (["--help"], 0, "--number"),
    ],
)
def test_exit_code_and_message(arguments, exit_code, says, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["work", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        console.run(app, after_interrupt="What there is, is in out/.")
    printed = capfd.readouterr()
    assert (ended.value.code or 0) == exit_code
    assert says in printed.out + printed.err
    assert "Traceback" not in printed.err


def test_a_bug_is_not_swallowed(monkeypatch):
    monkeypatch.setattr("sys.argv", ["work", "--number", "4"])
    with pytest.raises(ZeroDivisionError):
        console.run(app)


def test_json_refuses_nan(capsys):
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.print_json({"ttft_s": float("nan")})
    console.print_json({"ttft_s": None})
    assert capsys.readouterr().out == '{\n  "ttft_s": null\n}\n'
