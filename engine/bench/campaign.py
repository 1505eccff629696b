"""`engine bench campaign`: all stages of a preset, one process each, in the order of their value, within a time.

A stage that fails, or hangs, or runs out of its time costs itself alone: its bundle says so with its log, and the next
one begins. What is complete is not measured again: a campaign that was stopped goes on where it was.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.bench import targets
from engine.bench.bundle import MAX_BYTES, pack, read_result
from engine.bench.presets import Preset, Stage
from engine.bench.stage_report import DONE, FAILED, PARTIAL, SKIPPED, read_report
from roofline import console
from roofline.errors import InputError
from roofline.files import write_whole

SUMMARY_FILE = "summary.json"
_LOG = "log.txt"
_GRACE_S = 15.0  # from the request to stop until a stage is killed
_CLOSING_S = 15.0  # kept for the last stage to stop and be packed

Runner = Callable[[Stage, Path, float], str]  # runs a stage in a folder for so many seconds; says what went wrong


@dataclass(frozen=True, slots=True)
class Campaign:
    """What to run, where its bundles go, and for how many seconds in all."""

    preset: Preset
    out: Path
    budget_s: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.budget_s > 0:
            raise InputError(f"the campaign has {self.budget_s:g} s; give it some --minutes.")

    def run(self, on_stage: Callable[[dict[str, Any]], None], runner: "Runner | None" = None) -> dict[str, Any]:
        """Run every stage that is not done; returns the summary, which `summary.json` holds after each stage.

        `on_stage` is told each stage's result. `runner` replaces the processes (tests).
        """
        self.out.mkdir(parents=True, exist_ok=True)
        started, results = time.monotonic(), list[dict[str, Any]]()
        for stage in self.preset.stages:
            left_s = self.budget_s - (time.monotonic() - started) - _CLOSING_S
            result = self._result(stage, left_s, runner or self._in_process)
            results.append(result)
            on_stage(result)
            summary = self._summary(results)
            write_whole(self.out / SUMMARY_FILE, json.dumps(summary, indent=1, allow_nan=False) + "\n")
        return self._summary(results)

    def _result(self, stage: Stage, left_s: float, runner: Runner) -> dict[str, Any]:
        bundle = self.out / f"{stage.name}.zip"
        before = read_result(bundle)
        asked = stage.settings() | {"seed": self.seed}
        if before and before.get("status") == DONE and before.get("settings") == asked:
            return {**before, "kept": True}
        head = {"name": stage.name, "settings": asked, "kept": False}
        if left_s < stage.least_s:
            told = f"{max(left_s, 0):.0f} s were left and it needs {stage.least_s:.0f}; run the campaign again."
            return {**head, "status": SKIPPED, "sentences": [told], "seconds": 0.0, "figures": {}}
        with tempfile.TemporaryDirectory(prefix="campaign-") as scratch:
            return _run_and_pack(stage, Path(scratch), bundle, head, (min(stage.limit_s, left_s), runner))

    def _in_process(self, stage: Stage, folder: Path, limit_s: float) -> str:
        """Run the stage in a process of its own, its output in the log; stop it when its time is up."""
        command = [
            sys.executable,
            "-m",
            "engine.bench.stages",
            self.preset.name,
            stage.name,
            str(folder),
            str(self.seed),
        ]
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "140"}
        with (folder / _LOG).open("w") as log:
            # A group of its own: Ctrl-C reaches the campaign, which then asks the stage once.
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0)
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                return _stop(process)
            except KeyboardInterrupt:
                _stop(process)
                raise
        return f"Its process ended with code {code}; {_last_words(folder / _LOG)}" if code else ""

    def _summary(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for result in results:
            figures |= result["figures"]
        hardware = figures.get("hardware")
        return {
            "campaign": self.preset.name,
            "what": self.preset.what,
            "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": hardware,
            "stages": [
                {key: result[key] for key in ("name", "status", "sentences", "seconds", "kept")} for result in results
            ],
            "figures": {result["name"]: result["figures"] for result in results},
            "targets": {"hardware": targets.hardware(), "reached": targets.reached(_on_target(figures, hardware))},
        }


def target_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a summary that the targets speak of, SI; none where it is of other hardware than theirs."""
    figures: dict[str, Any] = {}
    for found in summary["figures"].values():
        figures |= found
    return _on_target(figures, summary.get("hardware"))


def _on_target(figures: Mapping[str, Any], hardware: Mapping[str, Any] | None) -> dict[str, float]:
    if hardware is None or hardware.get("name") != targets.hardware():
        return {}
    return targets.known_figures(figures)


def _run_and_pack(
    stage: Stage, folder: Path, bundle: Path, head: Mapping[str, Any], how: tuple[float, Runner]
) -> dict[str, Any]:
    limit_s, runner = how
    started, trouble = time.monotonic(), "It was interrupted."
    try:
        trouble = runner(stage, folder, limit_s)
    finally:  # also where Ctrl-C ends the campaign: what the stage has measured is kept
        report = read_report(folder)
        sentences = [*report["sentences"], *filter(None, [trouble])]
        if report["status"] == FAILED and not sentences:
            sentences = ["Its time was up before it had anything to report."]
        result = {
            **head,
            "status": PARTIAL if trouble and report["status"] == DONE else report["status"],
            "sentences": sentences,
            "seconds": time.monotonic() - started,
            "figures": report["figures"],
        }
        size = pack(folder, bundle, result)
        if size > MAX_BYTES:
            console.err.print(
                f"{bundle} has {size / (1 << 20):.1f} MiB, above the {MAX_BYTES >> 20} that a bundle should have."
            )
    return result


def _stop(process: "subprocess.Popen[bytes]") -> str:
    """Ask the stage to end with what it has, and end it where it does not; says so in that case."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"It did not stop within {_GRACE_S:.0f} s of the end of its time and was killed."
    return ""


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"its log ends: {lines[-1][:200]}" if lines else "its log is empty."
