"""The dashboard from its first paint to its answers, without a browser."""

import time

import pytest
from streamlit.testing.v1 import AppTest

from simulator import scenario_file
from tests.source_tree import ROOT
from views import plan

WAIT_S = 120.0
# Short fixed lengths on a small model: the simulation takes a second or two.
SMALL = {"model": "qwen3-0.6b", "rate": "2", "prompt": "100", "output": "8", "prompt_cv": "0", "output_cv": "0"}


@pytest.fixture
def visit():
    """Opens the dashboard at a URL; what it simulates ends with the test."""
    opened = []

    def open_at(**parameters: str) -> AppTest:
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        at.query_params.update(parameters)
        opened.append(at)
        return at.run()

    yield open_at
    for at in opened:
        if "asker" in at.session_state:
            plan.background().keep_only(at.session_state["asker"], set())


def _text(at: AppTest) -> str:
    shown = (*at.markdown, *at.caption, *at.error, *at.warning, *at.info, *at.code)
    told = "\n".join(f"{getattr(element.proto, 'title', '')} {element.value}" for element in shown)
    return told.replace("\\", "").replace("\u200b", "")


def _until(at: AppTest, text: str) -> AppTest:
    deadline = time.monotonic() + WAIT_S
    while text not in _text(at):
        assert time.monotonic() < deadline, f"{text!r} does not come; the page says:\n{_text(at)}"
        assert not at.exception
        time.sleep(0.1)
        at.run()
    return at


def test_first_paint_shows_the_facts_before_any_simulation(visit):
    at = visit()
    assert not at.exception and not at.error and not at.warning
    assert "Before any simulation" in _text(at)
    assert {"KV cache tokens, replica", "Mean prompt, alone"} <= {metric.label for metric in at.metric}
    assert "simulator plan headroom.yaml" in _text(at)


def test_the_answer_comes_with_its_figures_and_what_they_count(visit):
    at = _until(visit(**SMALL), "You need")
    assert not at.exception
    text = _text(at)
    assert "You need **1 GPU = 1 replica × TP1** on H100 for 2 requests/s of qwen3-0.6b" in text
    assert "p99 TTFT ≤ 500 ms and p99 TPOT ≤ 50 ms" in text
    assert "analytic" in text and "What would limit it first" in text and "simulated requests in steady state" in text
    assert "What I assumed" in text and "vllm bench serve" in text
    figures = {metric.label: metric.value.replace("\\", "") for metric in at.metric}
    assert figures["GPUs, fleet"] == "1"
    assert {"$ per hour, fleet", "p99 TTFT, fleet", "p99 TPOT, fleet", "Attainment, fleet"} <= {
        label.replace("\\", "") for label in figures
    }


def test_a_change_keeps_the_old_answer_until_the_new_one_comes(visit):
    at = _until(visit(**SMALL), "You need")
    at.number_input(key="rate").set_value(3.0).run()
    assert "for 2 requests/s" in _text(at) and "The answer before your change" in _text(at)
    _until(at, "for 3 requests/s")
    assert "The answer before your change" not in _text(at)


def test_the_price_changes_the_cost_and_nothing_else(visit):
    at = _until(visit(**SMALL, price="7.5"), "You need")
    assert "at $7.50 per GPU and hour" in _text(at)


def test_targets_that_nothing_meets_name_the_nearest_change(visit):
    at = _until(visit(**SMALL, ttft="1"), "No fleet meets")
    assert not at.exception
    assert "slo.ttft_ms is 1" in _text(at) and "nearest change: slo.ttft_ms above" in _text(at)


def test_a_model_that_does_not_fit_names_what_would(visit):
    at = visit(model="llama-3.1-70b")
    assert not at.exception
    assert "it fits with tensor parallelism 2 or with fp8 weights" in at.error[0].value.replace("\\", "")
    at.selectbox(key="tp").set_value(4).run()
    assert not at.error and not at.exception


def test_a_profile_for_something_else_is_refused_until_a_transfer_is_asked_for(visit):
    profile = "qwen3-32b_b300_tp1_vllm-0.20.1"
    at = _until(visit(**SMALL, profile=profile), "was fitted on something else")
    assert not at.exception
    at.toggle(key="transfer").set_value(True).run()
    assert not at.exception and "was fitted on something else" not in _text(at)


HOSTILE = {
    "model": "../../../etc/passwd",
    "rate": "1e999",
    "tp": "-1",
    "prompt": "<script>alert(1)</script>",
    "ttft": "nan",
    "profile": "/etc/passwd",
    "preset": "![x](http://example.com/x.png)",
    "__proto__": "x",
    "percentile": "99' OR 1=1",
    "transfer": "maybe",
}


def test_a_hostile_url_gets_a_clear_message_and_the_defaults(visit):
    at = visit(**HOSTILE)
    assert not at.exception and not at.error
    (warning,) = at.warning
    text = warning.value.replace("\\", "")
    assert "rate is '1e999'; it must be a number from 0.01 to 100,000" in text
    assert (
        "![x]" not in warning.value and "://" not in warning.value and "<script" not in warning.value.replace("\\<", "")
    )
    assert at.number_input(key="rate").value == 20.0 and at.selectbox(key="model").value == "llama-3.1-8b"
    next(button for button in at.button if button.label == "I have seen it").click().run()
    assert not at.warning and not at.exception


def _upload(at: AppTest, text: str, name: str = "mine.yaml") -> AppTest:
    at.file_uploader[0].upload(name, text.encode(), "application/yaml")
    return at.run()


def test_a_scenario_file_fills_the_sidebar_and_keeps_the_rest(visit):
    at = _upload(
        visit(),
        "name: mine\nmodel: qwen3-0.6b\nhardware: {accelerator: L4}\nclient: {to_engine_ms: 5}\n"
        "workload: {request_rate: 1.5, prompt_tokens: 100, output_tokens: 8}\nslo: {ttft_ms: 900}\n",
    )
    assert not at.exception and not at.error
    assert at.number_input(key="rate").value == 1.5 and at.selectbox(key="gpu").value == "L4"
    assert at.number_input(key="tpot").value is None
    assert "client.to_engine_ms" in at.warning[0].value.replace("\\", "")
    shown = scenario_file.from_text(next(code.value for code in at.code if code.language == "yaml"))
    assert shown.client.to_engine_ms == 5 and shown.name == "mine"
    next(button for button in at.button if button.label == "Back to the presets").click().run()
    assert not at.exception and at.number_input(key="rate").value == 20.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("modle: x", "modle"),
        ("[1, 2]", "list"),
        ("a: [", "not valid YAML"),
        ("model: x\nhardware: {accelerator: H100}\nworkload: {request_rate: -1, prompt_tokens: 1, output_tokens: 1}",
         "workload.request_rate is -1"),
        ("model: x\nhardware: {accelerator: H100}\nworkload: {request_rate: 1e7, prompt_tokens: 1, output_tokens: 1}",
         "this page takes 0.01 to 100,000"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_scenario_gets_one_sentence_and_changes_nothing(visit, text, told):
    at = _upload(visit(), text)
    assert not at.exception
    (error,) = at.error
    assert told in error.value.replace("\\", "")
    assert at.number_input(key="rate").value == 20.0


def test_a_preset_fills_in_its_workload_and_leaves_the_hardware(visit):
    at = visit(gpu="H200")
    at.selectbox(key="preset").set_value("code completion").run()
    assert not at.exception
    assert at.number_input(key="output").value == 28 and at.number_input(key="ttft").value == 300
    assert at.selectbox(key="gpu").value == "H200"
