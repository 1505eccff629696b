"""The dashboard's door: the scenario in the sidebar, and the pages that answer for it. `streamlit run app.py`."""

import streamlit as st

from roofline.errors import HeadroomError
from views import plan, sidebar, words

st.set_page_config(page_title="Headroom: GPUs for an LLM", page_icon="⚡", layout="wide", initial_sidebar_state="auto")


def main() -> None:
    """Draw the sidebar, then the page; wrong input is one message in the page's place."""
    try:
        scenario = sidebar.scenario()
    except HeadroomError as error:
        st.error(words.plain(str(error)), title="The sidebar does not make a scenario", icon=":material/error:")
        return

    def plan_page() -> None:
        sidebar.show_address_faults()
        plan.show(scenario)

    st.navigation([st.Page(plan_page, title="Plan", url_path="plan", default=True)]).run()


main()
