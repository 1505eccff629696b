"""What stands behind the step times: a GPU's memory, and the operators of a pass under its roofs."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from roofline.analytic import Breakdown
from roofline.hardware import HardwareSpec
from roofline.memory import MemoryPlan
from simulator.output.figures.style import BLUE, GREEN, LINE, ORANGE, SERIES, SYMBOLS, styled

GIB = 2**30
TEXT_PLACES = ("bottom right", "top right")  # operators may lie on one spot


def memory_stack(plans: Mapping[str, MemoryPlan], num_blocks: Mapping[str, int] | None = None) -> go.Figure:
    """GiB of one GPU by what holds them, a bar a plan; `num_blocks` are the KV blocks in use where not all that fit."""
    figure = go.Figure()
    labels = list(plans)
    parts: dict[str, list[float]] = {"weights": [], "KV blocks": [], "activations and buffers": [], "free": []}
    for label, plan in plans.items():
        blocks = (num_blocks or {}).get(label, max(plan.kv_blocks, 0))
        kv_bytes = blocks * plan.block_size * plan.kv_bytes_per_token
        free = max(plan.memory_bytes - plan.weight_bytes - plan.other_bytes - kv_bytes, 0.0)
        tokens = max(blocks - 1, 0) * plan.block_size  # one block is the null block
        told = f"{tokens:,} tokens in the cache" if tokens else "does not fit"
        end = plan.memory_bytes / GIB
        figure.add_annotation(y=label, x=end, text=told, showarrow=False, xanchor="right", yshift=32)
        for name, value in zip(parts, (plan.weight_bytes, kv_bytes, plan.other_bytes, free), strict=True):
            parts[name].append(value / GIB)
    for (name, values), colour in zip(parts.items(), (BLUE, GREEN, ORANGE, "#DDDDDD"), strict=True):
        figure.add_bar(
            y=labels,
            x=values,
            name=name,
            orientation="h",
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate=f"{name} %{{x:.3g}} GiB<extra></extra>",
        )
    figure.update_xaxes(title="Memory of one GPU (GiB)", rangemode="tozero")
    styled(figure).update_layout(barmode="stack", height=150 + 90 * len(plans), yaxis_autorange="reversed")
    return figure


def roofline(passes: Mapping[str, Breakdown], hardware: HardwareSpec, dtype: str = "bf16") -> go.Figure:
    """The operators of some passes, `prefill` and `decode` say: FLOP/s reached over FLOP a byte of memory traffic.

    Only operators that move bytes and compute have a place; communication and fixed costs have none.
    """
    peak = hardware.dense_flops_per_s[hardware.compute_format(dtype)]
    figure = go.Figure()
    placed = []
    for number, (label, breakdown) in enumerate(passes.items()):
        terms = [term for term in breakdown.terms if term.flops > 0 and term.bytes > 0 and term.seconds > 0]
        sizes = [8 + 22 * term.seconds / breakdown.seconds for term in terms]
        placed += [term.flops / term.bytes for term in terms]
        figure.add_scatter(
            x=[term.flops / term.bytes for term in terms],
            y=[term.flops / term.seconds / 1e12 for term in terms],
            mode="markers+text",
            text=[term.name for term in terms],
            textposition=[TEXT_PLACES[place % len(TEXT_PLACES)] for place in range(len(terms))],
            name=label,
            marker={"symbol": SYMBOLS[number], "size": sizes, "color": SERIES[number % len(SERIES)]},
            customdata=[[term.seconds * 1e3, 100 * term.seconds / breakdown.seconds] for term in terms],
            hovertemplate="%{text}: %{customdata[0]:.3g} ms, %{customdata[1]:.0f} % of the pass<br>%{x:.3g} FLOP a byte"
            "<br>%{y:.4g} TFLOP/s<extra></extra>",
        )
    ridge = peak / hardware.memory_bytes_per_s
    ends = np.array([min([ridge / 100, *(x / 4 for x in placed)]), ridge, max([ridge * 30, *(x * 2 for x in placed)])])
    roof = np.minimum(ends * hardware.memory_bytes_per_s, peak) / 1e12
    figure.add_scatter(
        x=ends,
        y=roof,
        mode="lines",
        name=f"{hardware.name}, {dtype}, at best",
        line={"color": LINE, "width": 2},
        hoverinfo="skip",
    )
    figure.update_xaxes(title="FLOP a byte of memory traffic", type="log", dtick=1)
    figure.update_yaxes(title="TFLOP/s, one GPU", type="log", dtick=1)
    return styled(figure)
