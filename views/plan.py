"""The page Plan: how many GPUs, what they cost, how sure that is, and what would check it."""

import hashlib
from pathlib import Path
from uuid import uuid4

import streamlit as st

from roofline.errors import HeadroomError, InfeasibleError
from simulator import scenario_file
from simulator.output.results import LoadCurve, Plan
from simulator.planning.load_curve import load_curve
from simulator.planning.plan import plan
from simulator.scenario import Scenario
from views import answer, assumed, charts, facts, inputs, takeaway, words
from views.background import Background, Job, Work

QUICK_S = 0.3  # an answer that comes this soon is shown without a progress bar before it
LOOK_EVERY_S = 0.5
SAID_LINES = 4


def show(scenario: Scenario) -> None:
    """Draw the page for a scenario."""
    try:
        known = facts.facts_of(scenario)
    except HeadroomError as error:
        _refuse(error, scenario)
        return
    top = st.container()
    means = inputs.values_of(scenario)
    facts.draw(known, means["prompt"], means["output"])
    below = st.container()
    with top:
        planned, is_current = _planned(scenario)
    if planned is not None:
        with below:
            _draw_below(planned, is_current)
    takeaway.draw(scenario, planned if is_current else None)


def _planned(scenario: Scenario) -> tuple[Plan | None, bool]:
    """The plan to show, and whether it is this scenario's: while that is simulated, the answer before it stays."""
    job = _ask(f"plan {_key(scenario)}", lambda job: plan(scenario, job.say))
    before: Plan | None = st.session_state.get("shown_plan")
    if not job.wait(QUICK_S):
        _progress(job, "Simulating fleets to find the smallest that holds")
        if before is not None:
            _draw_stale(before)
        return before, False
    try:
        planned: Plan = job.answer()
    except HeadroomError as error:
        st.session_state.pop("shown_plan", None)
        _refuse(error, scenario)
        return None, True
    st.session_state["shown_plan"] = planned
    answer.draw(planned)
    return planned, True


def _draw_stale(before: Plan) -> None:
    st.caption("The answer before your change:")
    with st.container(key="stale"):
        st.html("<style>.st-key-stale {opacity: 0.45}</style>")
        answer.draw(before)


def _draw_below(planned: Plan, is_current: bool) -> None:
    curve = _curve(planned) if is_current else st.session_state.get("shown_curve")
    if curve is not None:
        charts.draw(curve, planned)
    assumed.draw(planned)


def _curve(planned: Plan) -> LoadCurve | None:
    """The load curve of the planned fleet, once it is there."""
    fleet = scenario_file.with_changes(planned.scenario, {"fleet.replicas": planned.replicas})
    job = _ask(f"curve {_key(fleet)}", lambda job: load_curve(fleet, job.say))
    if not job.wait(QUICK_S):
        _progress(job, f"Simulating {words.count(planned.replicas, 'replica')} at lower and higher loads")
        return st.session_state.get("shown_curve")
    try:
        curve: LoadCurve = job.answer()
    except HeadroomError as error:
        st.error(words.plain(str(error)), title="No load curve", icon=":material/error:")
        return None
    st.session_state["shown_curve"] = curve
    return curve


def _refuse(error: HeadroomError, scenario: Scenario) -> None:
    """One message in the answer's place."""
    infeasible = isinstance(error, InfeasibleError)
    asked = answer.targets(scenario)
    title = f"No fleet meets {asked}" if infeasible and asked else "This scenario cannot be planned"
    st.error(words.plain(str(error)), title=words.plain(title), icon=":material/block:")


@st.cache_resource
def background() -> Background:
    """The workers that all sessions of this server share."""
    return Background()


def _ask(key: str, work: Work) -> Job:
    """This session's question; its earlier ones of the same kind are no longer waited for."""
    asker: str = st.session_state.setdefault("asker", uuid4().hex)
    asked: dict[str, str] = st.session_state.setdefault("asked", {})
    asked[key.partition(" ")[0]] = key
    background().keep_only(asker, set(asked.values()))
    return background().ask(asker, key, work)


def _key(scenario: Scenario) -> str:
    """The scenario's content, with the age of the files it names: the same key has the same answer."""
    named = (
        scenario.model,
        scenario.step_time.profile,
        scenario.hardware.catalogue,
        scenario.workload.trace and scenario.workload.trace.file,
    )
    ages = [path.stat().st_mtime_ns for path in (Path(name) for name in named if name) if path.exists()]
    return hashlib.sha256(f"{scenario_file.to_yaml(scenario)}{ages}".encode()).hexdigest()


@st.fragment(run_every=LOOK_EVERY_S)
def _progress(job: Job, what: str) -> None:
    """What a job has found so far; draws the page again when it is over."""
    if job.is_over:
        st.rerun()
    count = f", {job.num_requests:,} requests" if job.num_requests else ""
    with st.container(border=True, gap="small"):
        st.markdown(f":material/hourglass_top: **{words.plain(what)}** {words.plain(f'({job.age_s:.0f} s{count})')}")
        for sentence in job.said[-SAID_LINES:]:
            st.caption(words.plain(sentence))
