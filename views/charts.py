"""Latency against offered load: the figure of one metric, and the row of them on the page.

Colours are of the Okabe-Ito palette, and nothing is told by colour alone.
"""

import math
from dataclasses import dataclass

import plotly.graph_objects as go
import streamlit as st

from simulator.output.results import Estimate, LoadCurve, Metric, Plan, RunResult
from simulator.output.wording import METRIC_NAMES
from views import answer, words

BEYOND_TARGET = 2.5  # times the target: what lies higher is a miss whatever it is, and would flatten the rest
HEIGHT_PX = 330


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a chart on a light or a dark page."""

    line: str
    band: str
    target: str
    shade: str
    text: str


LIGHT = Palette("#0072B2", "rgba(0,114,178,0.18)", "#D55E00", "rgba(128,128,128,0.16)", "#31333F")
DARK = Palette("#56B4E9", "rgba(86,180,233,0.22)", "#E69F00", "rgba(160,160,160,0.22)", "#FAFAFA")


def draw(curve: LoadCurve, plan: Plan) -> None:
    """The charts of every metric with a target, side by side where there is room."""
    percentile = words.ordinal(plan.scenario.slo.percentile)
    fleet = f"{words.count(curve.replicas, 'replica')} ({words.count(curve.gpus, 'GPU')})"
    st.markdown(f"##### {percentile} latency against offered load, {fleet}")
    palette = DARK if st.context.theme.type == "dark" else LIGHT
    metrics = answer.metrics_shown(plan.scenario)
    with st.grid(len(metrics), min_column_width=360, gap="small", key="charts"):
        for metric in metrics:
            figure = latency_against_load(curve, metric, plan, palette)
            name = METRIC_NAMES[metric]
            st.plotly_chart(
                figure, key=f"chart_{metric}", config={"displaylogo": False, "modeBarButtonsToRemove": _BUTTONS},
                alt=f"{percentile} {name} against offered load",
            )  # fmt: skip
    st.caption(words.plain(_reading(curve, plan.chosen.offered_rate_per_s)))


_BUTTONS = ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"]


def _reading(curve: LoadCurve, load_per_s: float) -> str:
    """How far the fleet goes, and how to read the charts."""
    best = curve.max_sustainable_rate_per_s
    if best is None:
        reach = "No simulated load has a steady state."
    else:
        share = f"your load is {load_per_s / best:.0%} of it"
        reach = f"Highest simulated load with a steady state: {words.rate(best)} requests/s; {share}."
    return f"{reach} Bands are 95 % intervals; every point is a simulation of its own, with its warm-up cut."


def latency_against_load(curve: LoadCurve, metric: Metric, plan: Plan, palette: Palette = LIGHT) -> go.Figure:
    """The percentile that the targets speak of, in ms, of every load with a steady state.

    Beside it: the target, the load that was asked about, and the loads at which there is no steady state.
    """
    steady = [point for point in curve.points if point.is_steady]
    target_s = plan.chosen.targets_s.get(metric)
    figure = go.Figure()
    _add_band(figure, steady, metric, palette)
    _add_line(figure, steady, metric, palette)
    _add_asked(figure, plan, metric, palette)
    if target_s is not None:
        figure.add_hline(
            y=target_s * 1e3, line={"color": palette.target, "dash": "dash", "width": 2}, name="target",
            annotation={"text": f"target {words.seconds(target_s)}", "font": {"color": palette.target}},
            annotation_position="top left",
        )  # fmt: skip
    end_per_s = _shade_unsteady(figure, curve, palette)
    percentile, name = words.ordinal(plan.scenario.slo.percentile), METRIC_NAMES[metric]
    figure.update_layout(
        height=HEIGHT_PX, showlegend=False, margin={"l": 10, "r": 10, "t": 30, "b": 10}, hovermode="closest",
        uirevision="constant",
    )  # fmt: skip
    figure.update_xaxes(title="offered load, whole fleet (requests/s)", range=[0, end_per_s], rangemode="tozero")
    top_ms = _top_ms([*steady, plan.chosen], metric, target_s)
    figure.update_yaxes(title=f"{percentile} {name} (ms)", range=[0, top_ms], tickformat="~s" if top_ms >= 1e5 else ",")
    return figure


def _add_band(figure: go.Figure, steady: list[RunResult], metric: Metric, palette: Palette) -> None:
    known = [point for point in steady if _is_known(point.latencies[metric].at_target)]
    loads = [point.offered_rate_per_s for point in known]
    ends = [point.latencies[metric].at_target for point in known]
    figure.add_scatter(
        x=[*loads, *reversed(loads)], y=[1e3 * y for y in (*(e.high for e in ends), *(e.low for e in reversed(ends)))],
        fill="toself", fillcolor=palette.band, line={"width": 0}, mode="lines", hoverinfo="skip", name="95 % interval",
    )  # fmt: skip


def _is_known(estimate: Estimate) -> bool:
    return math.isfinite(estimate.low) and math.isfinite(estimate.high)


def _add_line(figure: go.Figure, steady: list[RunResult], metric: Metric, palette: Palette) -> None:
    figure.add_scatter(
        x=[point.offered_rate_per_s for point in steady],
        y=[1e3 * point.latencies[metric].at_target.value for point in steady],
        mode="lines+markers", line={"color": palette.line, "width": 2.5}, marker={"size": 8}, name=METRIC_NAMES[metric],
        text=[_hover(point, metric) for point in steady], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _hover(point: RunResult, metric: Metric) -> str:
    latency = point.latencies[metric]
    return (
        f"<b>{words.rate(point.offered_rate_per_s)} requests/s</b><br>"
        f"{words.ordinal(point.percentile)} {words.seconds(latency.at_target.value)}<br>"
        f"95 % interval {words.interval(latency.at_target)}<br>"
        f"p50 {words.seconds(latency.p50.value)}, {point.num_requests:,} requests"
    )


def _add_asked(figure: go.Figure, plan: Plan, metric: Metric, palette: Palette) -> None:
    """The load that was asked about, as the plan found it."""
    chosen = plan.chosen
    load = chosen.offered_rate_per_s
    figure.add_vline(
        x=load, line={"color": palette.text, "dash": "dot", "width": 1},
        annotation={"text": "your load", "font": {"color": palette.text}}, annotation_position="top",
    )  # fmt: skip
    figure.add_scatter(
        x=[load], y=[1e3 * chosen.latencies[metric].at_target.value], mode="markers", name="your load",
        marker={"symbol": "diamond", "size": 13, "color": palette.line, "line": {"color": palette.text, "width": 1.5}},
        text=[_hover(chosen, metric)], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _shade_unsteady(figure: go.Figure, curve: LoadCurve, palette: Palette) -> float:
    """Shade the loads from the first one without a steady state on; returns where the chart ends."""
    loads = [point.offered_rate_per_s for point in curve.points]
    end = 1.05 * max(loads)
    first = next((point.offered_rate_per_s for point in curve.points if not point.is_steady), None)
    if first is not None:
        figure.add_vrect(
            x0=first, x1=end, fillcolor=palette.shade, line_width=0, layer="below", name="no steady state",
            annotation={"text": "no steady state", "font": {"color": palette.text, "size": 11}, "textangle": -90},
            annotation_position="inside bottom right",
        )  # fmt: skip
    return end


def _top_ms(shown: list[RunResult], metric: Metric, target_s: float | None) -> float:
    """The upper end of the axis: everything measured, but not far beyond the target."""
    highest_s = max(point.latencies[metric].at_target.value for point in shown)
    if target_s is None:
        return 1.15e3 * highest_s
    return 1e3 * max(1.3 * target_s, min(1.15 * highest_s, BEYOND_TARGET * target_s))
