"""Figures to choose by: scenarios side by side, and a fleet of one's own against an API's price."""

import math
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from simulator.output.figures.style import BLUE, GREY, LINE, SERIES, SYMBOLS, VERMILION, styled
from simulator.output.wording import figure_name
from simulator.planning.compare import FIGURES, Comparison


def differences(comparison: Comparison) -> go.Figure:
    """Relative differences from the first scenario with their intervals; what crosses the line may be chance."""
    figure = go.Figure()
    named = [(name, figure_name(name, comparison.percentile)) for name in reversed(FIGURES)]
    for number, contender in enumerate(comparison.contenders[1:]):
        known = [(shown, contender.differences[name]) for name, shown in named if name in contender.differences]
        values = [100 * d.value for _, d in known]
        figure.add_scatter(
            y=[shown for shown, _ in known],
            x=values,
            mode="markers",
            name=contender.scenario.name,
            marker={"color": SERIES[number % len(SERIES)], "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "thickness": 1.5,
                "array": [100 * (d.high - d.value) for _, d in known],
                "arrayminus": [100 * (d.value - d.low) for _, d in known],
            },
            hovertemplate="%{y}: %{x:+.3g} %<extra></extra>",
        )
    figure.add_vline(0, line={"color": LINE, "width": 1.5}, opacity=1)
    figure.update_xaxes(title=f"Difference from {comparison.contenders[0].scenario.name} (%), 95 % intervals")
    styled(figure).update_layout(height=120 + 40 * len(FIGURES), margin={"l": 200})
    return figure


ROUNDING = 1e-9  # of a number of replicas: 13.000000001 are 13


@dataclass(frozen=True, slots=True)
class OwnFleet:
    """What one replica costs and serves: dollars a month whether busy or not, output tokens a month at its capacity."""

    usd_per_replica_month: float
    tokens_per_replica_month: float

    def usd_per_month(self, tokens_per_month: float) -> float:
        """Cost of the replicas that so many tokens a month need, spread evenly; at least one."""
        return max(1, math.ceil(tokens_per_month / self.tokens_per_replica_month)) * self.usd_per_replica_month

    def break_even_tokens(self, usd_per_million: float) -> float | None:
        """The smallest volume from which on the fleet is never dearer than the API; None where it always may be.

        n replicas serve up to n times a replica's volume, so the worst moment is just after one more was added; the
        last that is still too early for the API's price is caught up with at its own cost.
        """
        api_per_replica = usd_per_million * self.tokens_per_replica_month / 1e6
        if api_per_replica <= self.usd_per_replica_month:
            return None
        replicas = math.ceil(1 / (api_per_replica / self.usd_per_replica_month - 1) * (1 - ROUNDING))
        return replicas * self.usd_per_replica_month / usd_per_million * 1e6


def own_fleet_against_api(fleet: OwnFleet, usd_per_million: float, most_tokens: float | None = None) -> go.Figure:
    """Dollars a month over output tokens a month: the fleet's steps, the API's line, and where they part for good."""
    crossing = fleet.break_even_tokens(usd_per_million)
    most = most_tokens or 2.5 * max(crossing or 0.0, 2 * fleet.tokens_per_replica_month)
    volumes = np.linspace(0, most, 600)
    figure = go.Figure()
    hover = "%{x:.3g} billion tokens<br>$%{y:,.0f} a month<extra></extra>"
    figure.add_scatter(
        x=volumes / 1e9,
        y=[fleet.usd_per_month(v) for v in volumes],
        mode="lines",
        name="own fleet",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        hovertemplate=hover,
    )
    figure.add_scatter(
        x=volumes / 1e9,
        y=volumes / 1e6 * usd_per_million,
        mode="lines",
        name=f"API at ${usd_per_million:g} a million",
        line={"color": VERMILION, "width": 2, "dash": "dash"},
        hovertemplate=hover,
    )
    if crossing is not None and crossing <= most:
        figure.add_vline(crossing / 1e9, line={"color": GREY, "dash": "dot", "width": 1.5}, opacity=1)
        figure.add_annotation(
            x=crossing / 1e9,
            y=0.02,
            yref="paper",
            text=f"never dearer from {crossing / 1e9:.3g} billion",
            showarrow=False,
            xanchor="left",
            xshift=4,
        )
    figure.update_xaxes(title="Output tokens a month (billion)", rangemode="tozero")
    figure.update_yaxes(title="$ a month", rangemode="tozero")
    return styled(figure)
