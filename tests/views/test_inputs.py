"""One table makes the widgets, the check of a URL and the scenario: what it must never lose or let through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline.errors import InputError
from simulator import scenario_file
from views import inputs
from views.inputs import ANALYTIC, INPUTS, Choice, Number
from views.presets import PRESETS

BASE = inputs.start("chat")
EXACT = """
name: from a file
model: qwen3-32b
hardware: {accelerator: H200}
parallelism: {tensor: 2}
engine: {max_num_seqs: 96, async_scheduling: true}
client: {to_engine_ms: 5}
workload: {request_rate: 3.5, prompt_tokens: "uniform:100:300", output_tokens: 64}
slo: {e2e_ms: 9000, percentile: 97}
prices: {low: 1, typical: 2, high: 3}
"""


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_makes_a_scenario_that_the_sidebar_shows(preset):
    scenario = inputs.start(preset)
    assert len(inputs.shown_for(scenario)) == len(INPUTS)
    assert inputs.address_faults({name: [_url(value)] for name, value in inputs.values_of(scenario).items()}) == []


def _url(value):
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as Streamlit writes it
    return "" if value is None else str(value)


@pytest.mark.parametrize("base", [*map(inputs.start, PRESETS), scenario_file.from_text(EXACT)])
def test_untouched_inputs_leave_the_scenario_as_it_is(base):
    assert inputs.with_values(base, inputs.values_of(base)) == base


def test_a_file_keeps_what_the_sidebar_has_no_input_for():
    base = scenario_file.from_text(EXACT)
    changed = inputs.with_values(base, {**inputs.values_of(base), "rate": 9.0})
    assert changed.workload.request_rate == 9.0
    assert changed == scenario_file.with_changes(base, {"workload.request_rate": 9.0})


def test_a_link_names_what_it_leaves_out():
    base = scenario_file.from_text(EXACT)
    left_out = inputs.left_out_of_link(base, "chat", inputs.values_of(base))
    assert "engine.async_scheduling" in left_out and "client.to_engine_ms" in left_out
    assert not {"model", "hardware.accelerator", "engine.max_num_seqs", "slo.percentile"} & set(left_out)
    assert inputs.left_out_of_link(BASE, "chat", inputs.values_of(BASE)) == []


def _values(one):
    match one:
        case Choice():
            return st.sampled_from(one.options)
        case Number(whole=True):
            return st.integers(int(one.low), int(one.high))
        case Number():
            return st.floats(one.low, one.high)
    return st.booleans()


SINGLE = [one for one in INPUTS if one.name not in ("prompt_cv", "output_cv", "prompt", "output")]


@given(st.data())
def test_what_an_input_shows_is_what_the_scenario_gets(data):
    """Set one input to anything it allows: no fault in a URL, and the scenario shows that and nothing else new."""
    one = data.draw(st.sampled_from(SINGLE))
    value = data.draw(_values(one))
    assert inputs.address_faults({one.name: [_url(value)]}) == []
    before = inputs.values_of(BASE)
    try:
        after = inputs.values_of(inputs.with_values(BASE, {**before, one.name: value}))
    except InputError as error:  # a switch without its profile, say: one sentence, from the scenario's own check
        assert str(error)
        return
    assert after == {**before, one.name: value}


@given(st.integers(1, 1_000_000), st.floats(0.0, 5.0))
def test_typed_lengths_keep_their_mean(mean, cv):
    scenario = inputs.with_values(BASE, {**inputs.values_of(BASE), "prompt": mean, "prompt_cv": cv})
    shown = inputs.values_of(scenario)
    assert shown["prompt"] == mean
    assert shown["prompt_cv"] == (0 if mean < 2 else pytest.approx(cv))


@pytest.mark.parametrize(
    ("name", "text", "remedy"),
    [
        ("rate", "abc", "from 0.01 to 100,000"),
        ("rate", "nan", "a number"),
        ("rate", "inf", "a number"),
        ("rate", "-1", "a number"),
        ("rate", "", "a number"),
        ("rate", "1e999", "a number"),
        ("max_replicas", "2.5", "a whole number"),
        ("model", "../../etc/passwd", "one of smollm2-135m"),
        ("gpu", "h100", "H100"),
        ("tp", "3", "1, 2, 4"),
        ("transfer", "maybe", "true or false"),
        ("preset", "x" * 10_000, "one of chat"),
        ("profile", "/etc/passwd", ANALYTIC),
    ],
)
def test_a_url_value_out_of_range_is_named_with_the_remedy(name, text, remedy):
    (fault,) = inputs.address_faults({name: [text]})
    assert name in fault and remedy in fault and text[:40] in fault
    assert len(fault) < 400


@given(st.dictionaries(st.text(max_size=60), st.lists(st.text(max_size=60), min_size=1, max_size=3), max_size=5))
def test_any_url_is_judged_without_an_error(parameters):
    known = set(inputs.names())
    faults = inputs.address_faults(parameters)
    assert len(faults) >= sum(1 for name in parameters if name not in known and not name.startswith("embed"))


def test_a_number_beyond_the_sidebar_is_refused_with_a_way_out():
    base = scenario_file.with_changes(BASE, {"workload.request_rate": 1e7})
    with pytest.raises(InputError, match=r"workload.request_rate is 1e\+07.*simulator plan"):
        inputs.shown_for(base)
