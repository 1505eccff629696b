"""Figures of the arithmetic, as plotly figures and as one HTML file: roofline plot, step breakdown, memory, cost.

The only module of this package that needs plotly; the command line loads it when a figure is asked for. Colours are
Okabe and Ito's, told apart with any colour vision.
"""

import html
from collections.abc import Mapping, Sequence
from math import log10
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from roofline.analytic import AnalyticStepTime
from roofline.breakdown import Breakdown, Term
from roofline.compare import RoofCost
from roofline.files import write_whole

COLOURS = {"compute": "#D55E00", "memory": "#0072B2", "link": "#009E73", "launch": "#7A7A7A"}
SYMBOLS = {"compute": "square", "memory": "circle"}
WAITS = {"compute": "compute", "memory": "memory bandwidth", "link": "link", "launch": "launches and host"}
SAME_SPOT = 0.3  # decades
PARTS = ("#0072B2", "#56B4E9", "#CC79A7", "#E69F00", "#F0E442", "#999999", "#D55E00", "#009E73")


def roofline_plot(estimate: AnalyticStepTime, parts: Breakdown) -> go.Figure:
    """Operators as points under the roofs: FLOP/s reached over FLOP per byte, sized by their share of the time.

    The dashed roofs are those of the datasheet, one for each format that an operator computes in; the solid ones what
    the efficiencies leave of them.
    """
    points = [term for term in parts.terms if term.flop_per_byte and term.seconds]
    intensities = [term.flop_per_byte or 1.0 for term in points]
    low, high = min([1.0, *intensities]) / 3, max([2000.0, *intensities]) * 2
    figure = go.Figure()
    for dtype in dict.fromkeys(estimate.hardware.compute_format(term.dtype) for term in points):
        _add_roof(figure, estimate, dtype, (low, high))
    labels = _labels(points, parts.seconds)
    for bound, symbol in SYMBOLS.items():
        chosen = [term for term in points if term.bound == bound]
        if chosen:
            _add_points(figure, chosen, labels, parts.seconds, symbol)
    figure.update_xaxes(title="Arithmetic intensity (FLOP per byte of memory traffic)", type="log", dtick=1)
    figure.update_yaxes(title="FLOP/s on each accelerator", type="log", exponentformat="SI", dtick=1)
    return _styled(figure, "Operators under the roof", 560)


def _add_roof(figure: go.Figure, estimate: AnalyticStepTime, dtype: str, ends: tuple[float, float]) -> None:
    hardware, efficiency = estimate.hardware, estimate.efficiency
    for name, compute, memory, dash in (
        (f"datasheet, {dtype}", 1.0, 1.0, "dash"),
        (f"usually reached, {dtype}", efficiency.compute, efficiency.memory, "solid"),
    ):
        rate, width = hardware.dense_flops_per_s[dtype] * compute, hardware.memory_bytes_per_s * memory
        ridge = rate / width
        figure.add_scatter(
            x=[ends[0], ridge, ends[1]], y=[ends[0] * width, rate, rate], mode="lines", name=name,
            line={"color": "#555555", "dash": dash, "width": 1.5},
            hovertemplate=f"{name}<br>ridge {ridge:.0f} FLOP/byte<extra></extra>",
        )  # fmt: skip


def _labels(terms: Sequence[Term], whole_s: float) -> dict[str, str]:
    """A label for every spot of the plot, at its longest operator: those that lie together share one."""
    labels: dict[str, str] = {}
    left = sorted(terms, key=lambda term: -term.seconds)
    while left:
        first = left[0]
        together = [term for term in left if _distance(first, term) < SAME_SPOT]
        left = [term for term in left if term not in together]
        named = [term.name for term in together if term.seconds >= 0.02 * whole_s]
        labels[first.name] = "<br>".join(named)
    return labels


def _distance(first: Term, other: Term) -> float:
    """Decades between two points, along the axis on which they are farther apart."""
    along_x = log10((first.flop_per_byte or 1.0) / (other.flop_per_byte or 1.0))
    along_y = log10(first.flops / first.seconds * other.seconds / other.flops)
    return max(abs(along_x), abs(along_y))


def _add_points(
    figure: go.Figure, terms: Sequence[Term], labels: Mapping[str, str], whole_s: float, symbol: str
) -> None:
    shares, bound = [term.seconds / whole_s for term in terms], terms[0].bound
    figure.add_scatter(
        x=[term.flop_per_byte for term in terms],
        y=[term.flops / term.seconds for term in terms],
        mode="markers+text",
        text=[labels.get(term.name, "") for term in terms],
        textposition="bottom center",
        customdata=[[term.name, term.seconds * 1e3, share] for term, share in zip(terms, shares, strict=True)],
        name=f"waits for {WAITS[bound]}",
        marker={"color": COLOURS[bound], "symbol": symbol, "size": [8 + 30 * share**0.5 for share in shares],
                "opacity": 0.85},
        hovertemplate="%{customdata[0]}<br>%{x:.3g} FLOP/byte, %{y:.3s}FLOP/s<br>"
                      "%{customdata[1]:.3f} ms, %{customdata[2]:.1%} of the pass<extra></extra>",
    )  # fmt: skip


def step_bars(parts: Breakdown) -> go.Figure:
    """Milliseconds of every operator, in the order of a layer, coloured by what it waits for."""
    shown = [term for term in parts.terms if term.seconds]
    figure = go.Figure()
    for bound, colour in COLOURS.items():
        chosen = [term for term in shown if term.bound == bound]
        if not chosen:
            continue
        figure.add_bar(
            y=[term.name for term in chosen], x=[term.seconds * 1e3 for term in chosen], orientation="h",
            name=f"waits for {WAITS[bound]}", marker={"color": colour},
            text=[f"{term.seconds / parts.seconds:.1%}" for term in chosen], textposition="outside",
            hovertemplate="%{y}: %{x:.3f} ms<extra></extra>",
        )  # fmt: skip
    longest = max(term.seconds for term in shown) * 1e3
    figure.update_yaxes(categoryorder="array", categoryarray=[term.name for term in shown][::-1], automargin=True)
    figure.update_xaxes(title="Milliseconds of the pass", range=[0, 1.15 * longest])
    title = f"Where {parts.seconds * 1e3:.3g} ms go"
    return _styled(figure, title, 160 + 26 * len(shown))


def memory_stack(plans: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Bytes on an accelerator by part, stacked: one bar for each named plan (`MemoryPlan.stack()`)."""
    figure = go.Figure()
    names = list(dict.fromkeys(part for stack in plans.values() for part in stack))
    for name, colour in zip(names, PARTS * (1 + len(names) // len(PARTS)), strict=False):
        sizes = [stack.get(name, 0.0) / 1e9 for stack in plans.values()]
        figure.add_bar(
            x=sizes, y=list(plans), orientation="h", name=name, marker={"color": colour},
            hovertemplate=f"{name}: %{{x:,.2f}} GB<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title="GB on each accelerator")
    figure.update_yaxes(automargin=True)
    return _styled(figure, "What takes the memory", 220 + 40 * len(plans))


def cost_bars(costs: Sequence[RoofCost]) -> go.Figure:
    """Dollars per million tokens at the roof, cheapest on top: the prompt's part and the answer's."""
    labels = [f"{cost.tensor_parallel} x {cost.accelerator}" for cost in costs]
    figure = go.Figure()
    for name, colour, values in (
        ("prompts", "#E69F00", [_share_of(cost, cost.prefill_s) for cost in costs]),
        ("answers", "#0072B2", [_share_of(cost, cost.seconds_per_request - cost.prefill_s) for cost in costs]),
    ):
        figure.add_bar(
            y=labels, x=values, orientation="h", name=name, marker={"color": colour},
            hovertemplate=f"%{{y}}, {name}: $%{{x:.4f}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack")
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1], automargin=True)
    figure.update_xaxes(title="Dollars per million tokens, prompts and answers together", tickprefix="$")
    return _styled(figure, "Cost where nothing idles", 180 + 28 * len(costs))


def _share_of(cost: RoofCost, seconds: float) -> float:
    return cost.usd_per_million_tokens * seconds / cost.seconds_per_request


def write(path: Path, title: str, figures: Sequence[go.Figure]) -> None:
    """One HTML file that opens offline, written whole or not at all."""
    drawn = "\n".join(figure.to_html(full_html=False, include_plotlyjs=False) for figure in figures)
    name = html.escape(title)
    write_whole(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
        "<style>body{font-family:system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#222}"
        f"</style>\n<script>{get_plotlyjs()}</script></head>\n<body><h1>{name}</h1>\n"
        "<p>Arithmetic on datasheet figures; nothing measured.</p>\n"
        f"{drawn}\n</body></html>\n",
    )


def _styled(figure: go.Figure, title: str, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white", title=title, height=height, margin={"l": 10, "r": 20, "t": 110, "b": 60},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "traceorder": "normal"}, font={"size": 13},
    )  # fmt: skip
    return figure
