"""What a bench prints when it is done: a table for the eye, one JSON document for scripts."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from engine.bench.attainment import RooflineShare
from engine.bench.machine import Machine
from engine.bench.serve import Served
from engine.core.metrics import completed, summarize
from engine.core.trace import Trace

_LATENCIES = {
    "ttft_s": "TTFT, time to first token",
    "tpot_s": "TPOT, time per output token",
    "itl_s": "ITL, gap between tokens",
    "e2e_s": "E2E, whole request",
}


def serve_json(served: Served, share: RooflineShare | None, out: Path) -> dict[str, Any]:
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


def serve_sentences(served: Served, share: RooflineShare | None, machine: Machine) -> list[str]:
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


def roofline_sentences(share: RooflineShare | None, machine: Machine) -> list[str]:
    """How close the steps came to the machine's measured ceilings."""
    if share is None:
        return []
    rates = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s {dtype}" for dtype, rate in machine.gemm_flop_per_s.items())
    sentence = (
        f"{share.fraction:.0%} of the roofline over {share.busy_s:.1f} s of steps: memory {share.mbu:.0%} of "
        f"{machine.memory_bytes_per_s / 1e9:.1f} GB/s, compute {share.mfu:.0%} of {rates} ({machine.name}, "
        f"{machine.threads} threads)."
    )
    if share.fraction <= 1:
        return [sentence]
    return [sentence, "Above 100 %: the machine was busier while its ceilings were measured; measure on a quiet one."]


def steps_json(trace: Trace, share: RooflineShare | None, out: Path) -> dict[str, Any]:
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
