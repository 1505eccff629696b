"""What a bench prints when it is done: a table for the eye, one JSON document for scripts."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from engine.bench.attainment import Shares
from engine.bench.machine import Machine
from engine.bench.offline import Throughput
from engine.bench.serve import Served
from engine.core.metrics import completed, summarize
from engine.core.trace import Trace

_LATENCIES = {
    "ttft_s": "TTFT, time to first token",
    "tpot_s": "TPOT, time per output token",
    "itl_s": "ITL, gap between tokens",
    "e2e_s": "E2E, whole request",
}


def serve_json(served: Served, share: Shares | None, out: Path) -> dict[str, Any]:
    """The result for scripts: the trace's path, its headline figures, the share of the roofline."""
    return {
        "trace": str(out),
        "interrupted": served.interrupted,
        "num_unsent": served.num_unsent,
        "summary": summarize(served.trace),
        "roofline": share.as_dict() if share else None,
    }


def latency_table(served: Served) -> Table:
    """Latencies in milliseconds."""
    summary = summarize(served.trace)
    table = Table(title="Latency, ms", title_justify="left")
    table.add_column("")
    for column in ("mean", "p50", "p90", "p99"):
        table.add_column(column, justify="right")
    for name, label in _LATENCIES.items():
        figures = summary[name]
        cells = ["-"] * 4 if figures is None else [f"{figures[c] * 1000:,.1f}" for c in ("mean", "p50", "p90", "p99")]
        table.add_row(label, *cells)
    return table


def serve_sentences(served: Served, share: Shares | None, machine: Machine) -> list[str]:
    """Throughput, preemptions and the share of this machine's measured ceilings."""
    summary, requests = summarize(served.trace), served.trace.requests
    sentences = []
    if summary["makespan_s"]:
        rates = f"{summary['request_throughput']:.2f} requests/s, {summary['output_throughput']:.1f} output tokens/s"
        counts = f"{summary['num_steps']} steps, {summary['num_preemptions']} preemptions"
        done = int(completed(requests).sum())
        sentences.append(f"{done} requests completed in {summary['makespan_s']:.1f} s: {rates}, {counts}.")
    if served.interrupted:
        aborted = int((requests["finish_reason"] == "abort").sum())
        sentences.append(f"Interrupted: {aborted} requests were aborted, {served.num_unsent} never sent.")
    return [*sentences, *roofline_sentences(share, machine)]


def throughput_json(served: Served, share: Shares | None, out: Path) -> dict[str, Any]:
    """The result for scripts: tokens and rates, the trace's path, the share of the roofline."""
    return {
        "trace": str(out),
        "interrupted": served.interrupted,
        "throughput": Throughput.of(served.trace.requests).as_dict(),
        "summary": summarize(served.trace),
        "roofline": share.as_dict() if share else None,
    }


def throughput_sentences(served: Served) -> list[str]:
    """Tokens a second: in, out, together."""
    found = Throughput.of(served.trace.requests)
    rates = found.as_dict()
    if rates["total_tokens_per_s"] is None:
        return ["Interrupted before a request was complete."]
    told = [f"{rates[f'{name}_tokens_per_s']:,.1f} {name}" for name in ("output", "input", "total")]
    sentences = [
        f"{found.input_tokens:,} prompt and {found.output_tokens:,} output tokens in {found.seconds:.2f} s: "
        f"{', '.join(told)} tokens/s."
    ]
    return [*sentences, "Interrupted: complete requests alone are counted."] if served.interrupted else sentences


def percentiles_table(found: dict[str, dict[str, float] | None]) -> Table:
    """Latencies in milliseconds by percentile."""
    table = Table(title="Latency, ms", title_justify="left")
    columns = ("mean", "min", "p50", "p90", "p99", "max")
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left")
    for name, figures in found.items():
        cells = ["-"] * len(columns) if figures is None else [f"{figures[c] * 1000:,.2f}" for c in columns]
        table.add_row(_LATENCIES[name], *cells)
    return table


def roofline_sentences(share: Shares | None, machine: Machine) -> list[str]:
    """How close the steps came to the machine's measured ceilings, and to the vendor's figures."""
    if share is None:
        return []
    used, where = share.measured, "" if machine.gpu else f", {machine.threads} threads"
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s {dtype}" for dtype, rate in machine.gemm_flop_per_s.items())
    sentences = [
        f"{used.fraction:.0%} of the roofline over {used.busy_s:.1f} s of steps: memory (MBU) {used.mbu:.0%} of "
        f"{machine.memory_bytes_per_s / 1e9:.1f} GB/s, compute (MFU) {used.mfu:.0%} of {rates}, as measured "
        f"({machine.name}{where})."
    ]
    vendor, peaks = share.datasheet, machine.datasheet()
    if vendor is not None and peaks is not None:
        sentences.append(
            f"Against the datasheet of {peaks.name}: {vendor.fraction:.0%} of its roofline, MBU {vendor.mbu:.0%}, "
            f"MFU {vendor.mfu:.0%}."
        )
    if used.fraction > 1:
        sentences.append(
            "Above 100 %: the machine was busier while its ceilings were measured; measure on a quiet one."
        )
    return sentences


def steps_json(trace: Trace, share: Shares | None, out: Path) -> dict[str, Any]:
    """The result for scripts: the trace's path, how many points it has, the share of the roofline."""
    return {
        "trace": str(out),
        "interrupted": trace.meta["workload"]["interrupted"],
        "num_steps": len(trace.steps),
        "roofline": share.as_dict() if share else None,
    }


def steps_table(steps: pd.DataFrame) -> Table:
    """Every measured composition with its time."""
    table = Table(title="Step times (median of the repeats)", title_justify="left")
    for column in ("prefill tokens", "on cached", "decoding", "mean context", "ms", "tokens/s"):
        table.add_column(column, justify="right")
    for row in steps.to_dict("records"):
        context = row["decode_kv_tokens"] / row["num_decode_seqs"] if row["num_decode_seqs"] else 0
        tokens = row["prefill_tokens"] + row["decode_tokens"]
        table.add_row(
            *(str(row[name]) for name in ("prefill_tokens", "prefill_kv_tokens", "num_decode_seqs")),
            *(f"{context:.0f}", f"{row['wall_s'] * 1000:.1f}", f"{tokens / row['wall_s']:,.0f}"),
        )
    return table
