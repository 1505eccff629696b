"""What a campaign stage leaves behind while it runs: figures, sentences and trace folders, each written at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.bench_result import bench_result
from engine.core.trace import BENCH_RESULT_FILE, Trace, write_trace
from roofline.files import write_whole

REPORT_FILE = "report.json"
DONE, PARTIAL, FAILED, SKIPPED = "done", "partial", "failed", "skipped"


class StageReport:
    """A stage's findings in `folder`, complete on disk after every call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.figures: dict[str, Any] = {}
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        """A sentence for the summary; the log has it too."""
        print(sentence, flush=True)
        self.sentences.append(sentence)
        self._write(PARTIAL)

    def add_figures(self, figures: Mapping[str, Any]) -> None:
        """Numbers (SI) for the summary and the targets."""
        self.figures |= figures
        self._write(PARTIAL)

    def add_table(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Rows as `<name>.json`."""
        write_whole(self.folder / f"{name}.json", json.dumps(rows, indent=1, allow_nan=False) + "\n")

    def add_trace(self, name: str, trace: Trace) -> None:
        """A trace as the folder `<name>`, with its summary in `vllm bench serve` format where it has requests.

        The per-request lists stay out of the summary: the trace's own table holds them in a tenth of the bytes.
        """
        texts = {}
        if len(trace.requests.columns):
            result = bench_result(trace, detailed=False)
            texts = {BENCH_RESULT_FILE: json.dumps(result, indent=1, allow_nan=False) + "\n"}
        write_trace(self.folder / name, trace, texts=texts)

    def end(self, status: str, sentence: str = "") -> None:
        """How it ended."""
        if sentence:
            self.say(sentence)
        self._write(status)

    def _write(self, status: str) -> None:
        content = {"status": status, "sentences": self.sentences, "figures": self.figures}
        write_whole(self.folder / REPORT_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_report(folder: Path) -> dict[str, Any]:
    """What a stage has reported so far; nothing where it was stopped before it could."""
    try:
        report: dict[str, Any] = json.loads((folder / REPORT_FILE).read_text())
    except (OSError, ValueError):
        return {"status": FAILED, "sentences": [], "figures": {}}
    return report
