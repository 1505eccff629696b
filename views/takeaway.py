"""What leaves the page: link, scenario file, the command that gives the same answer, the benchmark that checks it."""

import re
from urllib.parse import urlencode

import streamlit as st

from simulator import scenario_file
from simulator.output.results import Plan
from simulator.scenario import Scenario
from views import inputs, sidebar, words


def draw(scenario: Scenario, plan: Plan | None) -> None:
    """The exports; the benchmark command comes with the plan."""
    st.markdown("##### Take it with you")
    name = file_name(scenario)
    link, file, check = st.tabs(["Link", "Scenario file and command", "Check it on the real engine"])
    with link:
        st.code(_link(), language=None, wrap_lines=True)
        left_out = sidebar.link_leaves_out(scenario)
        if left_out:
            told = f"The link leaves out {', '.join(left_out)}: send the scenario file instead."
            st.warning(words.plain(told), icon=":material/link_off:")
    with file:
        text = scenario_file.to_yaml(scenario)
        st.download_button(
            # Handed over when it is asked for: a newer answer takes back a file that the page has not yet looked for.
            f"Download {name}", lambda: text, file_name=name, mime="application/yaml", on_click="ignore",
            icon=":material/download:",
        )  # fmt: skip
        st.code(f"simulator plan {name}", language="bash")
        st.code(text, language="yaml")
    with check:
        if plan is None:
            st.caption("The command comes with the answer.")
        else:
            st.code(plan.benchmark_command, language="bash", wrap_lines=True)


def file_name(scenario: Scenario) -> str:
    """The scenario's name as a file name that needs no quoting in a shell."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', scenario.name).strip('-.')[:60] or 'scenario'}.yaml"


def _link() -> str:
    said = {name: st.query_params[name] for name in inputs.names() if name in st.query_params}
    query = urlencode(said)
    base = f"{(st.context.url or '').partition('?')[0].rstrip('/')}/"
    return f"{base}?{query}" if query else base
