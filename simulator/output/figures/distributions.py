"""How latencies are distributed over requests, and what they consist of."""

import numpy as np
import plotly.graph_objects as go

from roofline.step_time import FloatArray
from simulator.output.attribution import E2E_PARTS, TTFT_PARTS, Attribution
from simulator.output.figures.style import BLUE, LINE, SERIES, add_target, log_axis, styled
from simulator.output.results import Metric, RunResult
from simulator.output.wording import METRIC_NAMES

CDF_POINTS = 400  # quantiles drawn; every sample would only make the page heavy


def latency_cdf(result: RunResult, metric: Metric, slo: dict[Metric, float] | None = None) -> go.Figure:
    """Share of requests below each latency, with the target's line."""
    values, shares = quantiles_ms(result.samples_s[metric])
    figure = go.Figure()
    figure.add_scatter(
        x=values, y=shares, mode="lines", name=METRIC_NAMES[metric], line={"color": BLUE, "width": 2},
        hovertemplate="%{y:.1f} % of the requests<br>within %{x:.3g} ms",
    )  # fmt: skip
    target_ms = add_target(figure, (result.targets_s if slo is None else slo).get(metric), "x")
    figure.update_xaxes(title=f"{METRIC_NAMES[metric]} (ms)", **log_axis([*values[[0, -1]], *target_ms]))
    figure.update_yaxes(title="Requests (%)", range=[0, 101])
    return styled(figure)


def quantiles_ms(samples_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Latencies in milliseconds and the percent of requests at or below each; finer in the tail."""
    known = samples_s[~np.isnan(samples_s)]
    if len(known) == 0:
        return np.empty(0), np.empty(0)
    shares = np.concatenate([np.linspace(0, 95, CDF_POINTS // 2), np.linspace(95, 100, CDF_POINTS // 2)[1:]])
    return np.percentile(known, shares) * 1e3, shares


def latency_parts(found: Attribution) -> go.Figure:
    """The parts of a latency as stacked bars: of all requests, and of the slowest."""
    names = TTFT_PARTS if found.metric == "ttft_s" else E2E_PARTS
    bars = [f"slowest {found.num_tail:,} (above p{found.percentile:g})", f"all {found.num_requests:,} requests"]
    figure = go.Figure()
    for colour, (part, told) in zip((*SERIES, LINE), names.items(), strict=False):
        values = [found.tail_s[part] * 1e3, found.mean_s[part] * 1e3]
        if max(values) > 1e-6:
            figure.add_bar(
                y=bars, x=values, name=part, orientation="h", marker={"color": colour, "line": {"width": 0}},
                hovertemplate=f"{part} %{{x:.3g}} ms<br>{told}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title=f"Mean {METRIC_NAMES[found.metric]} by part (ms)", rangemode="tozero")
    styled(figure).update_layout(barmode="stack", height=280, legend={"traceorder": "normal"})
    return figure
