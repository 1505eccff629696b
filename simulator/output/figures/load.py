"""What changes with the offered load. Points without a steady state are grey crosses, and no line goes through them."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from simulator.output.figures.style import BLUE, GREEN, GREY, LINE, VERMILION, add_target, log_axis, styled
from simulator.output.results import Latency, LoadCurve, Metric, RunResult
from simulator.output.wording import METRIC_NAMES

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
    target_ms = add_target(figure, targets.get(metric), "y")
    shown = [e.value * 1e3 for p in steady for e in (p.latencies[metric].p50, p.latencies[metric].p99)]
    figure.update_xaxes(title=_load_title(curve), rangemode="tozero")
    figure.update_yaxes(title=f"{METRIC_NAMES[metric]} (ms)", **log_axis([*shown, *target_ms, top * 1.5]))
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
        figure.add_hline(y=points[0].percentile, line={"color": LINE, "dash": "dash", "width": 1.5}, opacity=1)
    figure.update_xaxes(title=_load_title(curve), rangemode="tozero")
    figure.update_yaxes(title="Requests within the targets (%)", range=[min([90.0, *shares]), 100.5])
    return styled(figure)


def goodput_against_load(curve: LoadCurve) -> go.Figure:
    """Requests per second that keep every target over the offered rate, against the line on which all do."""
    points = [p for p in curve.points if p.goodput_per_s is not None]
    rates = [p.offered_rate_per_s for p in points]
    figure = go.Figure()
    figure.add_scatter(x=rates, y=rates, mode="lines", name="all that arrive", line={"color": GREY, "dash": "dot"})
    steady = [p for p in points if p.is_steady]
    figure.add_scatter(
        x=[p.offered_rate_per_s for p in steady], y=[p.goodput_per_s for p in steady], mode="lines+markers",
        name="within the targets", line={"color": BLUE, "width": 2}, marker={"size": 8},
        hovertemplate="%{x:.3g} requests/s arrive<br>%{y:.3g} keep every target<extra></extra>",
    )  # fmt: skip
    _add_unsteady(figure, [p for p in points if not p.is_steady], max(rates, default=1.0) / 1.5)
    figure.update_xaxes(title=_load_title(curve), rangemode="tozero")
    figure.update_yaxes(title="Goodput (requests/s within the targets)", rangemode="tozero")
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


def _load_title(curve: LoadCurve) -> str:
    return f"Offered load on {curve.gpus} GPU{'s' * (curve.gpus != 1)} (requests/s)"
