"""The page Plan: how many GPUs, what they cost, how sure that is, and what would check it."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any
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
SAID_LINES = 2


def show(scenario: Scenario) -> None:
    """Draw the page for a scenario."""
    try:
        known = facts.facts_of(scenario)
    except HeadroomError as error:
        _refuse(error, scenario)
        return
    top, middle = st.container(), st.container()
    means = inputs.values_of(scenario)
    facts.draw(known, means["prompt"], means["output"])
    below = st.container()
    with top:
        planned, is_current = _planned(scenario)
    if planned is not None:
        with middle:
            _draw_curve(planned, is_current)
    with below:
        if planned is not None:
            assumed.draw(planned)
        takeaway.draw(scenario, planned if is_current else None)


def _planned(scenario: Scenario) -> tuple[Plan | None, bool]:
    """The plan to show, and whether it is this scenario's: while that is simulated, the answer before it stays."""
    job = _ask(f"plan {_key(scenario)}", lambda job: plan(scenario, job.say, job.count, job.show))
    is_over = job.wait(QUICK_S)
    found: Plan | None
    try:
        found = job.answer() if is_over else job.found
    except HeadroomError as error:
        st.session_state.pop("shown_plan", None)
        _refuse(error, scenario)
        return None, True
    if found is not None:
        st.session_state["shown_plan"] = found
        answer.draw(found, is_final=is_over)
        if not is_over:
            _progress(job, found, "Simulating how far the number of replicas is in doubt")
        return found, True
    _progress(job, None, "Simulating fleets to find the smallest that holds")
    before: Plan | None = st.session_state.get("shown_plan")
    if before is not None:
        _draw_stale(before)
    return before, False


def _draw_stale(before: Plan) -> None:
    st.caption("The answer before your change:")
    with st.container(key="stale"):
        st.html("<style>.st-key-stale {opacity: 0.45}</style>")
        answer.draw(before)


def _draw_curve(planned: Plan, is_current: bool) -> None:
    """The load curve of the planned fleet, as far as it goes; of the plan before, while there is no new one."""
    if is_current:
        fleet = scenario_file.with_changes(planned.scenario, {"fleet.replicas": planned.replicas})
        job = _ask(f"curve {_key(fleet)}", lambda job: load_curve(fleet, job.say, count=job.count, found=job.show))
        is_over = job.wait(QUICK_S)
        try:
            curve: LoadCurve | None = job.answer() if is_over else job.found
        except HeadroomError as error:
            st.error(words.plain(str(error)), title="No load curve", icon=":material/error:")
            return
        st.session_state["shown_curve"] = (planned, curve)
    drawn: tuple[Plan, LoadCurve | None] | None = st.session_state.get("shown_curve")
    if drawn is not None and drawn[1] is not None:
        charts.draw(drawn[1], drawn[0])
    if is_current and not is_over:
        _progress(job, curve, f"Simulating {words.count(planned.replicas, 'replica')} at lower and higher loads")


def _refuse(error: HeadroomError, scenario: Scenario) -> None:
    """One message in the answer's place."""
    infeasible = isinstance(error, InfeasibleError)
    asked = answer.targets(scenario)
    title = f"No fleet meets {asked}" if infeasible and asked else "This scenario cannot be planned"
    st.error(words.plain(str(error)), title=words.plain(title), icon=":material/block:")


@cache
def background() -> Background:
    """The workers that all sessions of this server share."""
    return Background()


def _ask(key: str, work: Work) -> Job:
    """This session's question; its earlier ones of the same kind are no longer waited for."""
    asked: dict[str, str] = st.session_state.setdefault("asked", {})
    asked[key.partition(" ")[0]] = key
    background().keep_only(_asker(), set(asked.values()))
    return background().ask(_asker(), key, work)


def _asker() -> str:
    """This session's name among those who wait."""
    name: str = st.session_state.setdefault("asker", uuid4().hex)
    return name


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
def _progress(job: Job, shown: Any, what: str) -> None:
    """What a job has said so far; draws the page again when there is more to show."""
    job.look(_asker())
    if job.is_over or job.found is not shown:
        st.rerun()
    count = f", {job.num_requests:,} requests" if job.num_requests else ""
    with st.container(border=True, gap="small"):
        st.markdown(f":material/hourglass_top: **{words.plain(what)}** {words.plain(f'({job.age_s:.0f} s{count})')}")
        for sentence in job.said[-SAID_LINES:]:
            st.caption(words.plain(sentence))
