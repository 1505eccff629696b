"""The scenario in the sidebar: a preset or a file to start from, and an input for what people change most.

Drawn by the entry script before any page, so that every page shares it and the URL keeps all of it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import streamlit as st

from roofline.errors import HeadroomError, InputError
from simulator import scenario_file
from simulator.scenario import Scenario
from views import inputs, words
from views.inputs import Choice, Input, Number, Switch
from views.presets import PRESETS

FILE = "scenario_file_base"  # the scenario read from a file, in the session
FAULTS = "address_faults"


def scenario() -> Scenario:
    """Draw the sidebar and return what it says; raises InputError where that makes no scenario."""
    _note_address_faults()
    with st.sidebar:
        st.markdown("## Headroom")
        base = _start()
        shown = {one.name: one for one in inputs.shown_for(base)}
        values = _draw(shown, inputs.values_of(inputs.start(_preset())))
        _upload()
    st.session_state["values"] = values
    return inputs.with_values(base, {**inputs.values_of(base), **values})


def link_leaves_out(current: Scenario) -> list[str]:
    """Settings of the scenario on screen that its link does not carry."""
    if FILE not in st.session_state:
        return []
    return inputs.left_out_of_link(current, _preset(), st.session_state["values"])


def show_address_faults() -> None:
    """Say what of the address could not be used, until it is read."""
    faults = st.session_state.get(FAULTS, [])
    if faults:
        told = "\n".join(f"* {words.plain(fault)}" for fault in faults[:8])
        more = f"\n* and {len(faults) - 8} more" if len(faults) > 8 else ""
        st.warning(f"This link does not fit the page:\n{told}{more}", icon=":material/link_off:")
        st.button("I have seen it", on_click=lambda: st.session_state.update({FAULTS: []}))


def _note_address_faults() -> None:
    """Look at the URL before the widgets do: they drop what they cannot use without a word."""
    if FAULTS not in st.session_state:
        parameters = {name: st.query_params.get_all(name) for name in st.query_params}
        st.session_state[FAULTS] = inputs.address_faults(parameters)


def _preset() -> str:
    return st.session_state.get("preset", next(iter(PRESETS)))


def _start() -> Scenario:
    """The scenario that the inputs start from."""
    if FILE in st.session_state:
        base: Scenario = st.session_state[FILE]
        st.info(f"From the file: {words.plain(base.name)}", icon=":material/description:")
        st.button("Back to the presets", on_click=_forget_file, width="stretch")
        return base
    preset = st.selectbox(
        "Start from", list(PRESETS), key="preset", bind="query-params",
        on_change=_take_preset,
        help="A workload with its targets; the model, the hardware and the prices stay as they are.",
    )  # fmt: skip
    st.caption(words.plain(f"{PRESETS[preset].source[:1].upper()}{PRESETS[preset].source[1:]}."))
    return inputs.start(preset)


def _take_preset() -> None:
    """Show the preset's workload and targets; what a preset does not speak of stays."""
    touched = {place for preset in PRESETS.values() for place in preset.changes}
    values = inputs.values_of(inputs.start(st.session_state["preset"]))
    _show({one.name: values[one.name] for one in inputs.INPUTS if one.place in touched})


def _show(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        st.session_state[name] = value


def _draw(shown: Mapping[str, Input], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs in their groups; returns what they say by name."""

    def group(members: Iterable[Input]) -> dict[str, Any]:
        return {one.name: _widget(shown[one.name], defaults[one.name]) for one in members if one.name in shown}

    st.subheader("Workload")
    values = group(inputs.WORKLOAD)
    if "rate" not in shown:
        st.caption("Arrivals and lengths come from the recording that the file names.")
    else:
        with st.expander("Spread and bursts"):
            values |= group(inputs.SPREAD)
    st.subheader("Latency targets")
    values |= group(inputs.SLO)
    st.subheader("Model and hardware")
    values |= group(inputs.SERVING)
    if values["profile"] != inputs.ANALYTIC:
        values |= group([inputs.TRANSFER])
    st.subheader("Fleet and price")
    values |= group(inputs.FLEET)
    with st.expander("Engine settings"):
        values |= group(inputs.ENGINE)
    return values


def _widget(one: Input, default: Any) -> Any:
    """One input, bound to the URL parameter of its name."""
    common = {"key": one.name, "bind": "query-params", "help": one.help or None}
    match one:
        case Number():
            number = int if one.whole else float
            bounds = {"min_value": number(one.low), "max_value": number(one.high), "step": number(one.step)}
            value = None if default is None else number(default)
            shown_as = {"placeholder": one.empty or None, "format": "%d" if one.whole else "%g"}
            return st.number_input(one.label, **bounds, **common, **shown_as, value=value)
        case Choice():
            return st.selectbox(one.label, one.options, index=one.options.index(default), **common)
        case Switch():
            return st.toggle(one.label, value=default, **common)


def _upload() -> None:
    st.subheader("Scenario file")
    st.file_uploader(
        "Scenario file (YAML)", type=["yaml", "yml"], key="upload", on_change=_take_file, label_visibility="collapsed"
    )
    if fault := st.session_state.get("upload_fault"):
        st.error(words.plain(fault), icon=":material/error:")


def _take_file() -> None:
    """Read an uploaded scenario into the inputs, or keep the old one and say what is wrong with the file."""
    st.session_state.pop("upload_fault", None)
    file = st.session_state["upload"]
    if file is None:
        return
    try:
        read = scenario_file.from_text(_text(file.getvalue(), file.name), file.name)
        names = {one.name for one in inputs.shown_for(read)}
    except HeadroomError as error:
        st.session_state["upload_fault"] = str(error)
        return
    st.session_state[FILE] = read
    _show({name: value for name, value in inputs.values_of(read).items() if name in names})


def _text(content: bytes, name: str) -> str:
    if len(content) > scenario_file.MAX_BYTES:
        raise InputError(f"{name} has {len(content):,} bytes; a scenario is a page of YAML. Choose another file.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is no text ({error.reason} at byte {error.start}); choose a YAML file.") from error


def _forget_file() -> None:
    """Back to the first preset, in every input: the file's values have no other place to come from."""
    st.session_state.pop(FILE, None)
    st.session_state.pop("upload_fault", None)
    _show(inputs.values_of(inputs.start(next(iter(PRESETS)))))
