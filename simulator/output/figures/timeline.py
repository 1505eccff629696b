"""A run over time: what the passes computed, who ran and waited, how full the cache was."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from simulator.output.figures.style import BLUE, GREEN, ORANGE, SKY, VERMILION, styled
from simulator.output.timeline import Timeline

MOST_STEPS = 2000  # bars of one figure; more are thinner than a pixel


def run_over_time(line: Timeline) -> go.Figure:
    """Three charts over one time axis: tokens per second, requests, and the cache with its preemptions."""
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06, specs=[[{}], [{}], [{"secondary_y": True}]]
    )
    times_s, width_s = line.centres_s, np.diff(line.edges_s)
    rows = (
        (1, "prompt tokens/s", line.prefill_tokens / width_s, ORANGE, "solid"),
        (1, "output tokens/s", line.decode_tokens / width_s, BLUE, "dash"),
        (2, "running", line.running, BLUE, "solid"),
        (2, "waiting", line.waiting, VERMILION, "dash"),
    )
    for row, name, values, colour, dash in rows:
        style = {"color": colour, "dash": dash, "width": 1.5, "shape": "hvh"}
        hover = f"%{{x:.4g}} s<br>%{{y:,.4g}} {name}<extra></extra>"
        figure.add_scatter(
            x=times_s, y=values, name=name, mode="lines", line=style, hovertemplate=hover, row=row, col=1
        )
    figure.add_scatter(
        x=times_s,
        y=line.kv_use * 100,
        name="KV cache in use",
        mode="lines",
        line={"color": GREEN, "width": 1.5, "shape": "hvh"},
        hovertemplate="%{x:.4g} s<br>%{y:.1f} % of the KV blocks<extra></extra>",
        row=3,
        col=1,
    )
    if line.preemptions.sum() > 0:
        figure.add_bar(
            x=times_s,
            y=line.preemptions,
            name="preemptions",
            marker={"color": VERMILION, "line": {"width": 0}},
            width=width_s,
            opacity=0.6,
            row=3,
            col=1,
            secondary_y=True,
            hovertemplate="%{x:.4g} s<br>%{y:.3g} preemptions<extra></extra>",
        )
        figure.update_yaxes(
            title="Preemptions", rangemode="tozero", row=3, col=1, secondary_y=True, showgrid=False, tickmode="auto"
        )
    styled(figure).update_layout(height=640)
    figure.update_yaxes(title="Tokens/s", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="Requests", rangemode="tozero", row=2, col=1)
    figure.update_yaxes(title="KV blocks (%)", range=[0, 101], row=3, col=1, secondary_y=False)
    figure.update_xaxes(title="Time (s)", row=3, col=1)
    return figure


def batch_composition(steps: pd.DataFrame, begin_s: float = 0.0, replica: int = 0) -> go.Figure:
    """Each forward pass of one replica from `begin_s` on, as wide as it lasted: prompt and output tokens in it."""
    own = steps[steps["replica"] == replica] if "replica" in steps else steps
    shown = own[own["start_s"] >= begin_s].head(MOST_STEPS)
    figure = go.Figure()
    centres_s = shown["start_s"] + shown["wall_s"] / 2
    for name, column, colour in (("output tokens", "decode_tokens", BLUE), ("prompt tokens", "prefill_tokens", ORANGE)):
        figure.add_bar(
            x=centres_s,
            y=shown[column],
            width=shown["wall_s"],
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=shown["wall_s"] * 1e3,
            hovertemplate=f"%{{x:.5g}} s, %{{customdata:.3g}} ms<br>%{{y:,}} {name}<extra></extra>",
        )
    waiting = {"color": SKY, "width": 1.5, "shape": "hv"}
    figure.add_scatter(
        x=shown["start_s"],
        y=shown["num_waiting"],
        name="requests waiting",
        mode="lines",
        line=waiting,
        yaxis="y2",
        hovertemplate="%{x:.5g} s<br>%{y:,} requests waiting<extra></extra>",
    )
    styled(figure).update_layout(
        barmode="stack",
        bargap=0,
        yaxis2={
            "title": "Requests waiting",
            "overlaying": "y",
            "side": "right",
            "rangemode": "tozero",
            "tickmode": "auto",
            "showgrid": False,
        },
    )
    figure.update_xaxes(title=f"Time (s), replica {replica}")
    figure.update_layout(yaxis_title="Tokens in the pass")
    return figure
