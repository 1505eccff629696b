"""What a grid of scenarios shows: throughput against speed for the user, heat maps, cost against the target.

Input is the table of `simulator.sweep.sweep`: a row a point, the varied fields under their dotted names.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from simulator.output.figures.style import BLUE, GREEN, GREY, LINE, SERIES, SYMBOLS, VERMILION, styled

PARETO_Y: dict[str, tuple[str, bool]] = {  # column -> title, whether more is better
    "output_tokens_per_gpu_s": ("Output tokens/s, a GPU", True),
    "usd_per_million_output_tokens": ("$ per million output tokens", False),
}


def pareto(
    sweep: pd.DataFrame,
    varied: Sequence[str],
    y: Literal["output_tokens_per_gpu_s", "usd_per_million_output_tokens"] = "output_tokens_per_gpu_s",
    tpot_target_s: float | None = None,
    colour_by: str | None = None,
) -> go.Figure:
    """Efficiency over speed for the user (1 / median TPOT) of every steady point, and the frontier of the best ones.

    Right of the target's line a user gets tokens fast enough. `colour_by` is one of the varied fields.
    """
    title, more_is_better = PARETO_Y[y]
    points = steady(sweep)
    points = points[points[y].notna() & (points["p50_tpot_s"] > 0)] if y in points else points.iloc[:0]
    speed, height = 1 / points["p50_tpot_s"].to_numpy(), points[y].to_numpy(dtype=float)
    figure = go.Figure()
    if tpot_target_s is not None and len(points):
        figure.add_vrect(
            x0=1 / tpot_target_s, x1=1.05 * max(*speed, 1 / tpot_target_s), fillcolor=GREEN, opacity=0.08, line_width=0
        )
        figure.add_vline(1 / tpot_target_s, line={"color": LINE, "dash": "dash", "width": 1.5}, opacity=1)
    hover = f"%{{customdata}}<br>%{{x:.4g}} tokens/s a user<br>{title}: %{{y:,.4g}}<extra></extra>"
    groups = points[colour_by].astype(str) if colour_by else pd.Series("scenarios", index=points.index)
    for number, group in enumerate(dict.fromkeys(groups)):
        here = (groups == group).to_numpy()
        kept = points[here]["meets_targets"].astype(bool)
        figure.add_scatter(
            x=speed[here],
            y=height[here],
            mode="markers",
            name=str(group),
            customdata=_hover(points[here], varied),
            marker={
                "color": SERIES[number % len(SERIES)],
                "size": 10,
                "symbol": [SYMBOLS[number % len(SYMBOLS)] + ("" if keep else "-open") for keep in kept],
            },
            hovertemplate=hover,
        )
    best = frontier(speed, height if more_is_better else -height)
    figure.add_scatter(
        x=speed[best],
        y=height[best],
        mode="lines",
        name="best of these",
        line={"color": LINE, "width": 1.5, "shape": "linear"},
        hoverinfo="skip",
    )
    figure.update_xaxes(title="Output tokens/s a user (1 / median TPOT)", rangemode="tozero")
    figure.update_yaxes(title=title, rangemode="tozero")
    return styled(figure)


def frontier(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int64]:
    """Indices, by rising x, of the points that no other point beats in x and y at once."""
    order = np.lexsort((-y, -x))  # the largest x first
    best, kept = -np.inf, []
    for index in order:
        if y[index] > best:
            best = y[index]
            kept.append(int(index))
    return np.array(kept[::-1], dtype=np.int64)


def heat_map(sweep: pd.DataFrame, x: str, y: str, value: str, title: str = "") -> go.Figure:
    """One figure over two varied fields; a point without an answer or a steady state is blank and says why."""
    columns, rows = (list(dict.fromkeys(sweep[field].map(_label))) for field in (x, y))
    heights = np.full((len(rows), len(columns)), np.nan)
    told = np.full(heights.shape, "", dtype=object)
    for row in sweep.to_dict("records"):
        place = rows.index(_label(row[y])), columns.index(_label(row[x]))
        found = row.get(value)
        if row["status"] != "answered" or row.get("verdict", "steady") != "steady":
            told[place] = row["message"] if row["status"] != "answered" else row["reason"]
        elif found is not None and not pd.isna(found):
            heights[place] = float(found)
            told[place] = f"{float(found):,.4g}"
    cells = np.where(np.isnan(heights), "", told)
    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=rows,
            z=heights,
            text=cells,
            texttemplate="%{text}",
            customdata=told,
            colorscale="Cividis",
            hovertemplate=f"{x} %{{x}}<br>{y} %{{y}}<br>%{{customdata}}<extra></extra>",
            colorbar={"title": title or value},
            xgap=2,
            ygap=2,
        )
    )
    figure.update_xaxes(title=x, type="category")
    figure.update_yaxes(title=y, type="category")
    return styled(figure)


def cost_against_target(sweep: pd.DataFrame, target: str, unit: str = "ms") -> go.Figure:
    """What the planned fleet costs an hour over how tight a target is, with the range of prices."""
    told = sweep[(sweep["status"] == "answered") & sweep.get("usd_per_hour", pd.Series(np.nan, sweep.index)).notna()]
    told = told.sort_values(target)
    lost = sweep[sweep["status"] != "answered"]
    figure = go.Figure()
    if len(told):
        figure.add_scatter(
            x=[*told[target], *told[target][::-1]],
            y=[*told["usd_per_hour_high"], *told["usd_per_hour_low"][::-1]],
            fill="toself",
            fillcolor="rgba(0,114,178,0.15)",
            line_width=0,
            hoverinfo="skip",
            name="range of prices",
            mode="lines",
        )
    figure.add_scatter(
        x=told[target],
        y=told.get("usd_per_hour", []),
        mode="lines+markers",
        name="typical price",
        customdata=told.get("fleet", []),
        line={"color": BLUE, "width": 2},
        marker={"size": 8},
        hovertemplate=f"%{{x:,}} {unit}<br>%{{customdata}}<br>$%{{y:,.2f}} an hour<extra></extra>",
    )
    if len(lost):
        figure.add_scatter(
            x=lost[target],
            y=[0] * len(lost),
            mode="markers",
            name="nothing meets it",
            cliponaxis=False,
            customdata=lost["message"],
            marker={"symbol": "x-thin-open", "size": 10, "color": GREY},
            hovertemplate="%{x:,}<br>%{customdata}<extra></extra>",
        )
    figure.update_xaxes(title=f"{target} ({unit})")
    figure.update_yaxes(title="Fleet ($ an hour)", rangemode="tozero")
    return styled(figure)


def sensitivity(sweeps: dict[str, tuple[float, float]], base: float, title: str) -> go.Figure:
    """How far one figure moves when one thing at a time is at its low and its high end; the largest on top."""
    ordered = sorted(sweeps.items(), key=lambda item: abs(item[1][1] - item[1][0]))
    names = [name for name, _ in ordered]
    figure = go.Figure()
    for side, (label, colour) in enumerate((("at the low end", BLUE), ("at the high end", VERMILION))):
        ends = [values[side] - base for _, values in ordered]
        figure.add_bar(
            y=names,
            x=ends,
            base=base,
            orientation="h",
            name=label,
            marker={"color": colour, "line": {"width": 0}},
            customdata=[values[side] for _, values in ordered],
            hovertemplate=f"%{{y}}, {label}: %{{customdata:,.4g}}<extra></extra>",
        )
    figure.add_vline(base, line={"color": LINE, "width": 1.5}, opacity=1)
    figure.update_xaxes(title=title)
    styled(figure).update_layout(barmode="overlay", height=140 + 40 * len(names))
    return figure


def steady(sweep: pd.DataFrame) -> pd.DataFrame:
    """The points with an answer from a steady state."""
    answered = sweep[sweep["status"] == "answered"]
    return answered[answered["verdict"] == "steady"] if len(answered) else answered


def _label(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _hover(points: pd.DataFrame, varied: Sequence[str]) -> list[str]:
    """The whole configuration of each point."""
    return ["<br>".join(f"{field} {row[field]}" for field in varied) for row in points.to_dict("records")]
