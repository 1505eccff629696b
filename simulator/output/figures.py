"""Figures of simulated results: pure functions from results to plotly figures, for the dashboard and the report.

Colours are Okabe and Ito's, told apart with any colour vision; lines differ by dash and marker as well. Points without
a steady state are open and in grey, and no line goes through them.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from roofline.step_time import FloatArray
from simulator.output.results import Latency, LoadCurve, Metric, RunResult
from simulator.output.wording import METRIC_NAMES

BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7A7A7A"
CDF_POINTS = 400  # quantiles drawn; every sample would only make the page heavy
_BANDS = (("p99", VERMILION, "solid", "circle"), ("p90", GREEN, "dash", "square"), ("p50", BLUE, "dot", "diamond"))


def latency_against_load(curve: LoadCurve, metric: Metric, slo: dict[Metric, float] | None = None) -> go.Figure:
    """p50, p90 and p99 of a metric over the offered rate, with the interval of p99 and the target's line.

    `slo` are the targets in seconds; those of the curve's runs where it is not given.
    """
    steady = [point for point in curve.points if point.is_steady]
    rates = [point.offered_rate_per_s for point in steady]
    figure = go.Figure()
    _add_interval(figure, rates, [point.latencies[metric] for point in steady])
    for name, colour, dash, symbol in _BANDS:
        values = [getattr(point.latencies[metric], name).value * 1e3 for point in steady]
        figure.add_scatter(
            x=rates, y=values, name=name, mode="lines+markers", line={"color": colour, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 8}, hovertemplate=f"%{{x:.3g}} requests/s<br>{name} %{{y:.3g}} ms",
        )  # fmt: skip
    top = max((latency.p99.value * 1e3 for latency in (p.latencies[metric] for p in steady)), default=1.0)
    _add_unsteady(figure, [point for point in curve.points if not point.is_steady], top)
    targets = slo if slo is not None else (curve.points[0].targets_s if curve.points else {})
    target_ms = _add_target(figure, targets.get(metric), "y")
    shown = [e.value * 1e3 for p in steady for e in (p.latencies[metric].p50, p.latencies[metric].p99)]
    figure.update_xaxes(title=_load_title(curve), rangemode="tozero")
    figure.update_yaxes(title=f"{METRIC_NAMES[metric]} (ms)", **_log_axis([*shown, *target_ms, top * 1.5]))
    return styled(figure)


def attainment_against_load(curve: LoadCurve) -> go.Figure:
    """Share of requests that keep every target over the offered rate; empty where no target is given."""
    points = [p for p in curve.points if p.attainment is not None and p.is_steady]
    shares = [100 * p.attainment.value for p in points if p.attainment]
    figure = go.Figure()
    figure.add_scatter(
        x=[p.offered_rate_per_s for p in points], y=shares, mode="lines+markers", name="requests within the targets",
        line={"color": BLUE, "width": 2}, marker={"size": 8}, hovertemplate="%{x:.3g} requests/s<br>%{y:.2f} %",
    )  # fmt: skip
    if points:
        figure.add_hline(y=points[0].percentile, line={"color": "#555555", "dash": "dash", "width": 1.5}, opacity=1)
    figure.update_xaxes(title=_load_title(curve), rangemode="tozero")
    figure.update_yaxes(title="Requests within the targets (%)", range=[min([90.0, *shares]), 100.5])
    return styled(figure)


def throughput_against_load(curve: LoadCurve) -> go.Figure:
    """Output tokens per second and GPU over the offered rate; it bends where the fleet is used up."""
    steady = [point for point in curve.points if point.is_steady]
    heights = [point.output_tokens_per_s / point.gpus for point in steady]
    figure = go.Figure()
    figure.add_scatter(
        x=[p.offered_rate_per_s for p in steady], y=heights, name="output tokens/s a GPU", mode="lines+markers",
        line={"color": BLUE, "width": 2}, marker={"size": 8},
        hovertemplate="%{x:.3g} requests/s<br>%{y:,.0f} tokens/s a GPU<extra></extra>",
    )  # fmt: skip
    _add_unsteady(figure, [point for point in curve.points if not point.is_steady], max(heights, default=1.0))
    figure.update_xaxes(title=_load_title(curve), rangemode="tozero")
    figure.update_yaxes(title="Output tokens/s, a GPU", rangemode="tozero")
    return styled(figure)


def latency_cdf(result: RunResult, metric: Metric, slo: dict[Metric, float] | None = None) -> go.Figure:
    """Share of requests below each latency, with the target's line."""
    values, shares = quantiles_ms(result.samples_s[metric])
    figure = go.Figure()
    figure.add_scatter(
        x=values, y=shares, mode="lines", name=METRIC_NAMES[metric], line={"color": BLUE, "width": 2},
        hovertemplate="%{y:.1f} % of the requests<br>within %{x:.3g} ms",
    )  # fmt: skip
    target_ms = _add_target(figure, (result.targets_s if slo is None else slo).get(metric), "x")
    figure.update_xaxes(title=f"{METRIC_NAMES[metric]} (ms)", **_log_axis([*values[[0, -1]], *target_ms]))
    figure.update_yaxes(title="Requests (%)", range=[0, 101])
    return styled(figure)


def quantiles_ms(samples_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Latencies in milliseconds and the percent of requests at or below each; finer in the tail."""
    known = samples_s[~np.isnan(samples_s)]
    if len(known) == 0:
        return np.empty(0), np.empty(0)
    shares = np.concatenate([np.linspace(0, 95, CDF_POINTS // 2), np.linspace(95, 100, CDF_POINTS // 2)[1:]])
    return np.percentile(known, shares) * 1e3, shares


def _add_interval(figure: go.Figure, rates: Sequence[float], latencies: Sequence[Latency]) -> None:
    """The 95 % interval of p99, drawn where both ends are known."""
    known = [(x, y.p99) for x, y in zip(rates, latencies, strict=True) if np.isfinite([y.p99.low, y.p99.high]).all()]
    if not known:
        return
    x = [rate for rate, _ in known]
    ends = [e.high * 1e3 for _, e in known] + [e.low * 1e3 for _, e in reversed(known)]
    figure.add_scatter(
        x=x + x[::-1], y=ends, fill="toself", fillcolor="rgba(213,94,0,0.15)", line_width=0, hoverinfo="skip",
        name="95 % interval of p99", mode="lines",
    )  # fmt: skip


def _add_unsteady(figure: go.Figure, points: Sequence[RunResult], top_ms: float) -> None:
    """Marks without a height of their own: a transient has no latency to show."""
    if points:
        figure.add_scatter(
            x=[p.offered_rate_per_s for p in points], y=[top_ms * 1.5] * len(points), mode="markers",
            name="no steady state", marker={"symbol": "x-thin-open", "size": 10, "color": GREY},
            customdata=[p.reason for p in points], hovertemplate="%{x:.3g} requests/s<br>%{customdata}<extra></extra>",
        )  # fmt: skip


def _add_target(figure: go.Figure, target_s: float | None, axis: Literal["x", "y"]) -> list[float]:
    """The target's line across a logarithmic axis, with its name; its value in milliseconds where there is one."""
    if target_s is None:
        return []
    target_ms = target_s * 1e3
    add = figure.add_hline if axis == "y" else figure.add_vline
    add(target_ms, line={"color": "#555555", "dash": "dash", "width": 1.5}, opacity=1)
    along = "x" if axis == "y" else "y"  # plotly wants the place on a logarithmic axis as its logarithm
    place = {axis: math.log10(target_ms), along: 0.01 if axis == "y" else 0.04, f"{along}ref": "paper"}
    figure.add_annotation(
        **place, text=f"target {target_ms:g} ms", showarrow=False, xanchor="left" if axis == "y" else "right",
        yanchor="top" if axis == "y" else "bottom",
    )  # fmt: skip
    return [target_ms]


def _log_axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis around positive values, labelled in full at 1, 2 and 5 times the powers of ten."""
    known = [float(value) for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(known) / 1.3, max(known) * 1.3
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return {
        "type": "log", "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks],
    }  # fmt: skip


def _load_title(curve: LoadCurve) -> str:
    return f"Offered load on {curve.gpus} GPU{'s' * (curve.gpus != 1)} (requests/s)"


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
