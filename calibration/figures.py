"""Figures of a fit: pure functions from arrays to plotly figures. Errors are percent of the measured time on screen."""

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from calibration.measurements import REGIONS, Measurements
from roofline.step_time import FloatArray

# Okabe and Ito's palette, told apart with any colour vision; the markers differ as well, for print.
COLOURS = {"decode": "#0072B2", "prefill": "#D55E00", "mixed": "#009E73"}
SYMBOLS = {"decode": "circle", "prefill": "square", "mixed": "triangle-up"}
MAX_POINTS = 2_000  # a region; more would only make the file heavy


def predicted_against_measured(measurements: Measurements, predicted: FloatArray) -> go.Figure:
    """One point a step in milliseconds, both axes logarithmic, with the diagonal and a band of 10 % about it."""
    milliseconds = measurements.seconds * 1e3
    low, high = float(milliseconds.min()) * 0.8, float(milliseconds.max()) * 1.25
    line = np.array([low, high])
    figure = go.Figure()
    figure.add_scatter(x=line, y=line * 1.1, mode="lines", line_width=0, hoverinfo="skip", showlegend=False)
    figure.add_scatter(
        x=line, y=line * 0.9, mode="lines", line_width=0, fill="tonexty", fillcolor="rgba(120,120,120,0.15)",
        name="within 10 %", hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=line, y=line, mode="lines", line={"color": "#555555", "width": 1}, name="exact", hoverinfo="skip"
    )
    for region, chosen in _regions(measurements):
        figure.add_scatter(
            x=milliseconds[chosen], y=predicted[chosen] * 1e3, mode="markers", name=region, marker=_marker(region),
            hovertemplate="measured %{x:.3g} ms<br>predicted %{y:.3g} ms",
        )  # fmt: skip
    figure.update_xaxes(title="Measured step time (ms)", type="log", dtick="D2", range=np.log10(line).tolist())
    figure.update_yaxes(title="Predicted step time (ms)", type="log", dtick="D2")
    return _styled(figure)


def error_over_run(measurements: Measurements, predicted: FloatArray) -> go.Figure:
    """Relative error of each step in the order measured: a slope or waves mean drift that no composition explains."""
    error = (predicted / measurements.seconds - 1.0) * 100.0
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": "#555555", "width": 1})
    for region, chosen in _regions(measurements):
        figure.add_scatter(
            x=chosen, y=error[chosen], mode="markers", name=region, marker=_marker(region),
            hovertemplate="step %{x}<br>error %{y:.1f} %",
        )  # fmt: skip
    reach = float(np.quantile(np.abs(error), 0.995)) * 1.3 + 1.0  # a few wild steps must not flatten the rest
    figure.update_xaxes(title="Step, in the order measured")
    figure.update_yaxes(title="Error of the prediction (%)", range=[-reach, reach])
    return _styled(figure)


def _regions(measurements: Measurements) -> list[tuple[str, NDArray[np.int64]]]:
    """Indices to draw of every region that occurs, thinned evenly."""
    result = []
    for index, region in enumerate(REGIONS):
        found = np.flatnonzero(measurements.regions == index)
        if len(found):
            result.append((region, found[:: 1 + len(found) // MAX_POINTS]))
    return result


def _marker(region: str) -> dict[str, object]:
    return {"color": COLOURS[region], "symbol": SYMBOLS[region], "size": 6, "opacity": 0.55}


def _styled(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        template="simple_white", width=860, height=480, margin={"l": 70, "r": 20, "t": 30, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        font={"family": "Inter, Helvetica, Arial, sans-serif", "size": 13},
    )  # fmt: skip
    figure.update_xaxes(showgrid=True, gridcolor="#eeeeee")
    figure.update_yaxes(showgrid=True, gridcolor="#eeeeee")
    return figure
