"""What the answer assumes: every setting, and whether somebody chose it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from simulator import scenario_file
from simulator.output.results import Plan
from simulator.scenario import Scenario
from views import words


def draw(plan: Plan) -> None:
    """The planner's own assumptions, then the table of settings."""
    st.markdown("##### What I assumed")
    st.markdown("\n".join(f"* {words.plain(text)}" for text in plan.assumptions))
    with st.expander("Every setting of the scenario; those nobody chose are marked"):
        st.dataframe(table(plan.scenario), hide_index=True, alt="Settings of the scenario")


def table(scenario: Scenario) -> pd.DataFrame:
    """One row a setting: its dotted place, its value, and `default` where it is nobody's choice."""
    chosen = _flat(scenario_file.to_mapping(scenario))
    every = _flat(scenario.model_dump(mode="json"))
    rows = [(place, _text(value), "" if place in chosen else "default") for place, value in every.items()]
    return pd.DataFrame(rows, columns=["setting", "value", ""])


def _flat(mapping: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in mapping.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return flat


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,g}" if isinstance(value, float) else str(value)
