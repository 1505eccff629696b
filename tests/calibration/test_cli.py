"""The commands: a trace becomes a profile, a profile is validated, and wrong input is one sentence with exit code 2."""

import json
import sys

import pytest

from calibration import cli
from tests.calibration.synthetic import steps_table

META = {"schema_version": 1, "model": {"name": "llama-3.1-8b"}, "hardware": {"name": "H100"}, "tensor_parallel": 1}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `calibration ARGS` as a user does; gives (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["calibration", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def trace(folder, seed, **meta):
    folder.mkdir()
    (folder / "meta.json").write_text(json.dumps({**META, **meta}))
    steps_table(200, seed).to_parquet(folder / "steps.parquet")
    return folder


def test_fit_then_validate(run, tmp_path):
    one, two = trace(tmp_path / "one", 0), trace(tmp_path / "two", 1)
    out = tmp_path / "profile.json"
    code, text, _ = run("fit", one, "--out", out, "--json", "--report", tmp_path / "r.html")
    document = json.loads(text)
    assert code == 0
    assert document["form"]["costs"] == json.loads(out.read_text())["form"]["costs"]
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")

    code, text, _ = run("validate", out, two, "--json", "--report", tmp_path / "v.html")
    found = json.loads(text)
    assert code == 0
    assert found["badge"] == "calibrated"
    assert found["steps"] == 200
    assert found["errors"][0]["mape"] < 0.04
    assert found["predicted_total_s"] == pytest.approx(found["measured_total_s"], rel=0.02)
    assert (tmp_path / "v.html").exists()


def test_a_simulated_trace_is_no_measurement(run, tmp_path):
    out = tmp_path / "profile.json"
    code, _, told = run("fit", trace(tmp_path / "one", 0, simulated=True), "--out", out)
    assert code == 2 and "one is a simulated trace" in told and not out.exists()


def test_tables_for_people(run, tmp_path):
    out = tmp_path / "profile.json"
    code, text, _ = run("fit", trace(tmp_path / "one", 0), trace(tmp_path / "two", 1), "--out", out)
    assert code == 0
    assert "grouped hold-out" in text
    assert "llama-3.1-8b on H100" in text
    code, text, _ = run("validate", out, trace(tmp_path / "three", 2))
    assert code == 0
    assert "another trace" in text


def test_other_hardware_needs_a_transfer(run, tmp_path):
    out = tmp_path / "profile.json"
    run("fit", trace(tmp_path / "one", 0), "--out", out, "--json")
    other = trace(tmp_path / "other", 1, hardware={"name": "L40S"})
    code, _, complaint = run("validate", out, other)
    assert code == 2
    assert "L40S" in complaint
    assert "Traceback" not in complaint
    code, text, _ = run("validate", out, other, "--transfer", "--json")
    assert code == 0
    assert json.loads(text)["badge"] == "transferred"


def test_list_shows_the_age(run):
    code, text, _ = run("list", "--json")
    assert code == 0
    for row in json.loads(text)["profiles"]:
        assert row["age_days"] >= 0
        assert row["steps"] > 0


@pytest.mark.parametrize("arguments", [("fit", "nowhere", "--out", "p.json"), ("validate", "nowhere.json", "trace")])
def test_missing_files_are_one_sentence(run, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    code, _, complaint = run(*arguments)
    assert code == 2
    assert complaint.count("Error:") == 1
    assert "nowhere" in complaint
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_names_what_a_bare_table_does_not(run, tmp_path):
    steps_table(50).to_csv(tmp_path / "steps.csv", index=False)
    code, text, _ = run(
        "fit", tmp_path / "steps.csv", "--out", tmp_path / "p.json", "--model", "qwen3-32b", "--gpu", "B300", "--json"
    )
    assert code == 0
    origin = json.loads(text)["provenance"]
    assert (origin["model"], origin["hardware"], origin["tensor_parallel"]) == ("qwen3-32b", "B300", None)


def test_an_unknown_clock_is_named(run, tmp_path):
    code, _, complaint = run("fit", trace(tmp_path / "t", 0), "--out", tmp_path / "p.json", "--clock", "sundial")
    assert code == 2
    assert "sundial" in complaint
    assert not (tmp_path / "p.json").exists()
