"""The look that all figures share: colours, axes, a target's line.

Colours are Okabe and Ito's, told apart with any colour vision; lines differ by dash and marker as well.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
ORANGE, SKY, PURPLE, YELLOW = "#E69F00", "#56B4E9", "#CC79A7", "#F0E442"
SERIES = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, YELLOW, GREY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "x")
DASHES = ("solid", "dash", "dot", "dashdot")
LINE = "#555555"


def add_target(figure: go.Figure, target_s: float | None, axis: Literal["x", "y"]) -> list[float]:
    """The target's line across a logarithmic axis, with its name; its value in milliseconds where there is one."""
    if target_s is None:
        return []
    target_ms = target_s * 1e3
    add = figure.add_hline if axis == "y" else figure.add_vline
    add(target_ms, line={"color": LINE, "dash": "dash", "width": 1.5}, opacity=1)
    along = "x" if axis == "y" else "y"  # plotly wants the place on a logarithmic axis as its logarithm
    place = {axis: math.log10(target_ms), along: 0.01 if axis == "y" else 0.04, f"{along}ref": "paper"}
    figure.add_annotation(
        **place, text=f"target {target_ms:g} ms", showarrow=False, xanchor="left" if axis == "y" else "right",
        yanchor="top" if axis == "y" else "bottom",
    )  # fmt: skip
    return [target_ms]


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis around positive values, labelled in full at 1, 2 and 5 times the powers of ten."""
    known = [float(value) for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(known) / 1.3, max(known) * 1.3
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return {
        "type": "log", "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks],
    }  # fmt: skip


def styled(figure: go.Figure) -> go.Figure:
    """The look that all figures share."""
    figure.update_layout(
        template="simple_white", height=420, margin={"l": 70, "r": 20, "t": 40, "b": 60}, hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        font={"family": "Inter, Helvetica, Arial, sans-serif", "size": 13},
    )  # fmt: skip
    figure.update_xaxes(showgrid=True, gridcolor="rgba(128,128,128,0.2)")
    figure.update_yaxes(showgrid=True, gridcolor="rgba(128,128,128,0.2)")
    return figure
