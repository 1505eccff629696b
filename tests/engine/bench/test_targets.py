"""The list of targets: consistent, judged by its own direction, and the same in the documentation."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.bench import targets
from engine.bench.presets import H200, StepsPlan
from engine.bench.targets import NOT_MEASURED, load_targets, markdown, reached
from tests.source_tree import ROOT

ALL = load_targets()


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.key)
def test_good_is_better_than_pass(target):
    worse, better = (target.least, target.good) if target.better == "higher" else (target.good, target.least)
    assert 0 < worse < better
    assert target.verdict(target.good * target.scale) == "good"
    assert target.verdict(target.least * target.scale) == "pass"
    beyond = target.least * (1.1 if target.better == "lower" else 0.9)
    assert target.verdict(beyond * target.scale) == "missed by 10%"


@given(st.sampled_from(ALL), st.lists(st.floats(1e-9, 1e16), min_size=2, max_size=6))
def test_a_better_value_never_gets_a_worse_verdict(target, values):
    ranks = {"good": 2, "pass": 1}
    ordered = sorted(values, reverse=target.better == "lower")
    verdicts = [ranks.get(target.verdict(value), 0) for value in ordered]
    assert all(first <= second for first, second in pairwise(verdicts))


def test_keys_are_those_that_a_campaign_measures():
    assert len({target.key for target in ALL}) == len(ALL)
    labels = {stage.plan.label for stage in H200.stages if isinstance(stage.plan, StepsPlan)}
    for target in ALL:
        kind, _, rest = target.key.partition("_8b_")
        assert (
            kind in ("decode_step", "prefill", "host_work") and "8b" in labels
            if rest
            else (
                target.key.startswith(("decode_attention", "prefill_attention")) or target.key == "throughput_mixed_256"
            )
        )


def test_what_is_not_measured_says_so():
    assert {row["verdict"] for row in reached({})} == {NOT_MEASURED} and NOT_MEASURED in markdown({})
    row = next(row for row in reached({"decode_step_8b_64": 8e-3}) if row["key"] == "decode_step_8b_64")
    assert (row["measured"], row["verdict"]) == (pytest.approx(8.0), "pass")
    assert "8 ms: pass" in markdown({"decode_step_8b_64": 8e-3})


def test_the_documentation_shows_this_table():
    text = (ROOT / "docs" / "benchmarking.md").read_text()
    assert targets.markdown({}) in text, "docs/benchmarking.md: replace its table by `engine bench targets --markdown`"


def test_the_command_takes_a_summary_of_the_right_hardware_alone(tmp_path):
    from engine.cli import app

    def run(*arguments):
        return CliRunner().invoke(app, ["bench", "targets", *map(str, arguments)])

    figures = {"steps-8b": {"decode_step_8b_1": 4.8e-3}, "kernels": {"decode_attention_32x1k": 50e-6}}
    summary = {"figures": figures, "hardware": {"name": "H200"}}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(summary))
    shown = run("--measured", path, "--markdown").stdout
    assert "4.8 ms: good" in shown and "50 us: missed by 6%" in shown
    path.write_text(json.dumps({**summary, "hardware": {"name": "a laptop"}}))
    assert "4.8 ms" not in run("--measured", path, "--markdown").stdout
    path.write_text("[]")
    assert "is no summary of a campaign" in str(run("--measured", path).exception)
    assert "one H200" in run().stdout
