"""The main job from end to end on this machine: answer, measure, calibrate, replay, plan, report.

python examples/demo.py [FOLDER]

A real engine serves a real 135M-parameter model on the CPU. Its trace at one load becomes a step-time model; the model
is tried on a second trace at another load, measured twice so that the machine's own spread stands beside the error;
then a plan is made on it. Each step is a command that is printed before it runs, so that any of them can be repeated.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from calibration import profile as profiles
from calibration.accuracy import predicted_seconds
from calibration.measurements import read as read_steps
from calibration.report import ReportInput, sections
from engine.core.metrics import summarize
from engine.core.trace import Trace, read_trace
from roofline import console
from roofline.errors import HeadroomError
from simulator.output import report, tables
from simulator.planning.load_curve import load_curve
from simulator.planning.plan import plan
from simulator.replay import Summary, relative_error, replay
from simulator.scenario_file import load as load_scenario

LENGTHS = ["--input-len", "lognormal:128:0.6:512", "--output-len", "lognormal:40:0.6:160"]
ENGINE = ["--max-num-seqs", "16", "--num-blocks", "400"]
FIT_RATE, FIT_SECONDS = 1.0, 90
OTHER_RATE, OTHER_SECONDS = 0.6, 60


def run(*words: str) -> None:
    """Print a command as a user would type it, and run it; its failure ends the demo with its message."""
    console.err.print(f"\n[bold cyan]$ {console.escape(shlex.join(words))}[/]", highlight=False, soft_wrap=True)
    program = Path(sys.executable).with_name(words[0])
    ended = subprocess.run([program, *words[1:]], check=False)
    if ended.returncode:
        sys.exit(ended.returncode)


def say(text: str) -> None:
    """A line of explanation between commands."""
    console.err.print(f"\n[bold]{text}[/]", highlight=False)


def measure(folder: Path, rate: float, seconds: int, seed: int) -> Trace:
    """Serve Poisson arrivals on the CPU in real time, and read the trace back."""
    load = ["--request-rate", str(rate), "--duration", str(seconds), "--seed", str(seed)]
    run("engine", "bench", "serve", *load, *LENGTHS, *ENGINE, "--out", str(folder))
    return read_trace(folder)


def write_scenario(path: Path, trace: Trace, profile: Path) -> None:
    """What the plan is asked: five times the measured load, on machines like this one, which have no list price."""
    measured = summarize(trace)
    settings = {name: trace.meta["engine_config"][name] for name in ("num_blocks", "max_num_seqs", "max_model_len")}
    settings["max_num_batched_tokens"] = trace.meta["engine_config"]["max_num_batched_tokens"]
    document = {
        "name": "SmolLM2 on machines like this one",
        "model": "smollm2-135m",
        "hardware": {"accelerator": trace.meta["hardware"]["name"]},
        "weight_dtype": trace.meta["weight_dtype"],
        "kv_dtype": trace.meta["kv_dtype"],
        "step_time": {"profile": str(profile.resolve())},
        "engine": settings,
        "fleet": {"max_replicas": 32},
        "workload": {"request_rate": 5 * FIT_RATE, "prompt_tokens": LENGTHS[1], "output_tokens": LENGTHS[3]},
        "slo": {  # what a request may take: four times the median TTFT and twice the median TPOT measured
            "ttft_ms": round(4000 * measured["ttft_s"]["p50"]),
            "tpot_ms": round(2000 * measured["tpot_s"]["p50"]),
            "percentile": 90,
        },
        "seed": 0,
    }
    path.write_text("# Written by examples/demo.py.\n" + yaml.safe_dump(document, sort_keys=False))


def spread_in_words(first: Summary, again: Summary, predicted: Summary) -> str:
    """The prediction's error beside the machine's own difference from one run to the next."""
    error, spread = relative_error(predicted, first), relative_error(again, first)
    parts = [
        f"{name} {error[key]['mean']:+.1%} (the same load measured again: {spread[key]['mean']:+.1%})"
        for key, name in (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("e2e_s", "E2E"))
    ]
    return "Mean error of the prediction: " + ", ".join(parts) + "."


def main(folder: Path) -> None:
    """Run every stage and write FOLDER/report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    profile_path, scenario_path = folder / "profile.json", folder / "scenario.yaml"
    say("1 of 6  A real model answers.")
    run("engine", "generate", "What is the capital of France?", "--max-tokens", "24")
    say(f"2 of 6  Measure: {FIT_SECONDS} s of Poisson arrivals at {FIT_RATE} requests/s, in real time.")
    fitted_on = measure(folder / "fit", FIT_RATE, FIT_SECONDS, seed=1)
    say("3 of 6  Calibrate: forward passes in, a step-time model with its error out.")
    run("calibration", "fit", str(folder / "fit"), "--out", str(profile_path))
    say(f"4 of 6  Try it on another load, {OTHER_RATE} requests/s; twice, to see the machine's own spread.")
    other = measure(folder / "other", OTHER_RATE, OTHER_SECONDS, seed=2)
    again = measure(folder / "again", OTHER_RATE, OTHER_SECONDS, seed=2)
    run("simulator", "replay", str(folder / "other"), "--profile", str(profile_path))
    profile = profiles.load(profile_path)
    replayed = replay(other, profile)
    verdict = spread_in_words(replayed.measured, summarize(again), replayed.predicted)
    console.out.print(verdict, highlight=False)
    say("5 of 6  Plan: how many such machines for five times the load?")
    write_scenario(scenario_path, fitted_on, profile_path)
    scenario = load_scenario(scenario_path)
    console.err.print(f"[bold cyan]$ simulator plan {scenario_path}[/]", highlight=False)
    planned = plan(scenario, lambda sentence: console.err.print(f"  {sentence}", style="dim", highlight=False))
    tables.print_plan(planned)
    say("6 of 6  Report.")
    steps = read_steps(folder / "fit")
    points = "The passes it was fitted on, outliers included."
    fit_report = ReportInput("", "", points, profile, steps, predicted_seconds(profile, steps), profile.errors)
    report.write_report(
        folder / "report.html",
        "From a measurement to a plan",
        verdict,
        [
            report.measured_section(summarize(fitted_on), f"{FIT_RATE} requests/s for {FIT_SECONDS} s on this CPU."),
            *sections(fit_report),
            report.replay_section(replayed.as_json(), f"At {OTHER_RATE} requests/s, not the fitted load. {verdict}"),
            *report.plan_sections(planned),
            report.curve_section(load_curve(scenario)),
        ],
    )
    (folder / "replay.json").write_text(json.dumps(replayed.as_json(), indent=2) + "\n")
    say_what_next(folder)


def say_what_next(folder: Path) -> None:
    """Where to look, and the commands to go on with."""
    console.out.print(f"\nWrote {folder / 'report.html'}: open it in a browser.", style="bold", highlight=False)
    console.out.print(
        "Next:\n"
        f"  simulator plan {folder / 'scenario.yaml'} --rate 10    another load\n"
        "  simulator plan examples/chat-h100.yaml            GPUs, from datasheet arithmetic\n"
        "  make app                                          the dashboard",
        highlight=False,
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out"))
    except HeadroomError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped; what was measured so far is kept.")
