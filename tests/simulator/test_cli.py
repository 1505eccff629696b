"""The commands answer as text and as strict JSON; wrong input gets a sentence and code 2, Ctrl-C leaves nothing."""

import json
import subprocess
import sys

import numpy as np
import pytest

from calibration.profile import SHIPPED
from engine.core import metrics
from engine.core.trace import Trace, read_trace, write_trace
from engine.core.workload import requests_of
from roofline.errors import TraceError
from simulator import run as runs
from simulator.scenario_file import to_yaml
from tests.simulator.scenarios import small
from tests.source_tree import ROOT

START = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from simulator.cli import main; main()"


def simulator(*arguments):
    words = [sys.executable, "-c", START, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture
def scenario_file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(small()))
    return path


def test_run_writes_a_trace_with_its_summary(scenario_file, tmp_path):
    done = simulator("run", scenario_file, "--out", tmp_path / "out", "--replicas", 2, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["verdict"] == "steady"
    assert figures["replicas"] == 2
    trace = read_trace(tmp_path / "out")
    assert trace.meta["simulated"] is True
    bench = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert bench["simulated"] is True
    assert bench["completed"] == figures["num_requests"]
    assert bench["p99_ttft_ms"] == pytest.approx(1000 * figures["latencies"]["ttft_s"]["p99"]["value"])
    assert len(trace.requests) >= figures["num_requests"] + figures["warmup_requests"]


def test_run_without_a_trace_gives_the_same_figures(scenario_file, tmp_path):
    alone = simulator("run", scenario_file, "--json")
    assert alone.returncode == 0, alone.stderr
    kept = simulator("run", scenario_file, "--out", tmp_path / "out", "--report", tmp_path / "run.html", "--json")
    seen, whole = json.loads(alone.stdout), json.loads(kept.stdout)
    assert whole["report"].endswith("run.html") and (tmp_path / "run.html").exists()
    assert {name: seen[name] for name in seen if name != "itl_s"} == {
        name: whole[name] for name in seen if name != "itl_s"
    }
    gaps_s = metrics.itl_s(read_trace(tmp_path / "out").requests)
    assert seen["itl_s"]["p50"] == pytest.approx(np.percentile(gaps_s, 50), rel=0.02)
    parts = whole["attribution"]["ttft_s"]
    assert sum(parts["mean_s"].values()) == pytest.approx(whole["latencies"]["ttft_s"]["mean"]["value"])


def test_a_sweep_is_written_and_shown(scenario_file, tmp_path):
    words = ["--vary", "engine.max_num_seqs=8,64", "--vary", "workload.request_rate=10,200", "--jobs", 1]
    told = simulator("sweep", scenario_file, *words, "--out", tmp_path / "s", "--report", tmp_path / "s.html")
    assert told.returncode == 0, told.stderr
    assert "unstable" in told.stdout and (tmp_path / "s.html").exists()
    again = simulator("sweep", scenario_file, *words, "--out", tmp_path / "s", "--json")
    document = json.loads(again.stdout)
    assert document["varied"] == ["engine.max_num_seqs", "workload.request_rate"]
    assert [point["engine.max_num_seqs"] for point in document["points"]] == [8, 8, 64, 64]


def test_a_trace_goes_out_in_other_formats(scenario_file, tmp_path):
    simulator("run", scenario_file, "--out", tmp_path / "out")
    done = simulator("export", tmp_path / "out", "--to", "perfetto", "--to", "aiperf", "--out", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "x" / "profile_export_aiperf.json").read_text())
    assert written["goodput"]["avg"] > 0  # the scenario's targets
    assert (tmp_path / "x" / "timeline.json.gz").stat().st_size > 1000
    wrong = simulator("export", tmp_path / "out", "--to", "excel", "--out", tmp_path / "y")
    assert wrong.returncode == 2 and "'excel'; choose one of bench" in wrong.stderr and not (tmp_path / "y").exists()


def test_plan_says_it_in_a_sentence_and_in_json(scenario_file):
    told = simulator("plan", scenario_file)
    assert told.returncode == 0, told.stderr
    assert "GPU" in told.stdout.splitlines()[0]
    answer = json.loads(simulator("plan", scenario_file, "--json").stdout)
    assert answer["answer"] == told.stdout.splitlines()[0]
    assert answer["gpus"] == answer["replicas"] * answer["gpus_per_replica"]
    assert answer["badge"] == "analytic"


def test_schema_is_one():
    assert json.loads(simulator("schema").stdout)["title"] == "Scenario"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("  request_rate: -1", "workload.request_rate is -1"),
        ("  request_rat: 1", "workload.request_rat is no setting; write request_rate."),
        ("  request_rate: [1", "not valid YAML in line"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(scenario_file, line, told):
    text = "\n".join(line if "request_rate" in old else old for old in scenario_file.read_text().splitlines())
    scenario_file.write_text(text)
    done = simulator("plan", scenario_file)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_infeasible_target_is_code_2(tmp_path):
    path = tmp_path / "tight.yaml"
    path.write_text(to_yaml(small(slo={"ttft_ms": 1})))
    done = simulator("plan", path)
    assert done.returncode == 2
    assert "nearest change" in done.stderr


def test_a_folder_of_something_else_is_refused_before_the_run(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(TraceError, match=r"letter\.txt"):
        runs.check_folder(tmp_path)


def test_a_replay_never_takes_the_place_of_what_was_measured(tmp_path):
    write_trace(tmp_path / "t", Trace({}, requests=requests_of(np.arange(2.0), np.array([9, 9]), np.array([3, 3]))))
    before = {path.name: path.read_bytes() for path in (tmp_path / "t").iterdir()}
    profile = SHIPPED / "qwen3-32b_b300_tp1_vllm-0.20.1.json"
    done = simulator("replay", tmp_path / "t", "--profile", profile, "--out", tmp_path / "u" / ".." / "t")
    assert done.returncode == 2 and "the measured trace itself" in done.stderr and "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "t").iterdir()} == before


def test_a_run_that_is_stopped_writes_nothing(tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.write(runs.run(small(), stop), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_summary_leaves_the_warm_up_out():
    done = runs.run(small())
    summary = runs.summary(done)
    assert summary["completed"] == done.result.num_requests
    assert summary["warmup_requests"] == done.result.warmup_requests
    assert summary["steady_state"] == done.result.verdict
