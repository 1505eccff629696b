"""Which formats a trace can be written in, and the file each one makes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.core.bench_result import bench_result
from engine.core.metrics import Slo
from engine.core.trace import Trace
from engine.core.trace_meta import client_link
from roofline.errors import InputError, TraceError
from roofline.files import write_whole
from simulator.output.attribution import parts
from simulator.output.formats import aiperf, inferencex, openmetrics, perfetto
from simulator.output.timeline import timeline

Content = str | bytes


@dataclass(frozen=True, slots=True)
class Format:
    """A file's usual name, what it is, which table it needs, and how it is made; `slo` is None without targets."""

    file: str
    about: str
    needs: str
    make: Callable[[Trace, Slo | None], Content]


def _json(value: object) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _requests_csv(trace: Trace) -> str:
    """The requests without their lists of times, and where the time of each went."""
    plain = trace.requests.drop(columns=[n for n in ("token_times_s", "block_keys") if n in trace.requests])
    divided = parts(trace.requests, client_link(trace)).rename(columns=lambda part: f"{part}_part_s")
    return plain.join(divided).to_csv(index=False)


FORMATS: dict[str, Format] = {
    "bench": Format(
        "bench.json", "`vllm bench serve` result, with its details", "requests",
        lambda trace, slo: _json(bench_result(trace, slo)),
    ),
    "aiperf": Format(
        "profile_export_aiperf.json", "AIPerf's statistics", "requests",
        lambda trace, slo: _json(aiperf.summary(trace, slo)),
    ),
    "aiperf-records": Format(
        "profile_export.jsonl", "AIPerf's records, a line a request", "requests",
        lambda trace, slo: aiperf.records(trace),
    ),
    "inferencex": Format(
        "inferencex.json", "InferenceX's result row", "requests", lambda trace, slo: _json(inferencex.row(trace))
    ),
    "perfetto": Format(
        "timeline.json.gz", "timeline for ui.perfetto.dev", "steps", lambda trace, slo: perfetto.timeline(trace)
    ),
    "openmetrics": Format(
        "metrics.txt", "final counters under vLLM's names", "requests", lambda trace, slo: openmetrics.text(trace)
    ),
    "requests-csv": Format(
        "requests.csv", "a row a request, and where its time went", "requests", lambda trace, slo: _requests_csv(trace)
    ),
    "timeline-csv": Format(
        "timeline.csv", "running, waiting, cache use and tokens over time", "steps",
        lambda trace, slo: timeline(trace.steps).table().to_csv(index=False),
    ),
}  # fmt: skip


def check_name(name: str) -> Format:
    """The format of that name; InputError names the others."""
    if name not in FORMATS:
        raise InputError(f"the format is {name!r}; choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def export(trace: Trace, name: str, path: Path | None = None, slo: Slo | None = None) -> Path:
    """Write the trace in a format, whole or not at all; to the format's usual name where no path is given.

    TraceError where the trace lacks the table that the format needs.
    """
    chosen = check_name(name)
    if getattr(trace, chosen.needs).empty:
        raise TraceError(f"{trace.source} has no {chosen.needs}, which {name} is made of; choose another format.")
    path = Path(chosen.file) if path is None else path
    write_whole(path, chosen.make(trace, slo))
    return path
