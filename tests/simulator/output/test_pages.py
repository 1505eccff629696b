"""A report stands alone in one file, escapes every name, and holds the figures of what it reports."""

import pandas as pd
import pytest

from simulator import run as runs
from simulator import sweep as sweeps
from simulator.grid import grid, parse_axis
from simulator.output import pages
from simulator.output.attribution import attribution
from simulator.planning.compare import compare
from tests.simulator.scenarios import small

NAME = "<script>alert(1)</script>"


def page(path):
    """The file's text, once it is sure to need nothing from outside."""
    html = path.read_text()
    assert 'src="http' not in html and "<script>alert(1)" not in html
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    return html


def figures(html):
    return html.count('class="plotly-graph-div"')


@pytest.fixture(scope="module")
def done():
    return runs.run(small(name=NAME, run__max_requests=900))


def test_a_run_is_shown_whole(done, tmp_path):
    path = tmp_path / "deep" / "run.html"
    pages.write_run(path, done.result, runs.measured(done))
    html = page(path)
    # two distributions (targets), two attributions, over time, single passes, memory, two roofs
    assert figures(html) == 9
    found = attribution(runs.measured(done), "ttft_s", 95)
    assert found.knob.split(",")[0] in html
    assert "By output tokens" in html and "17 to 32" in html


def test_a_trace_without_steps_shows_what_it_has(done):
    bare = runs.measured(done)
    assert pages.time_sections(type(bare)({}, requests=bare.requests)) == []
    assert len(pages.time_sections(bare)) == 2


def test_the_measured_part_of_a_run_is_that_of_its_figures(done):
    steady = runs.measured(done)
    assert len(steady.requests) == done.result.num_requests
    found = attribution(steady, "ttft_s", 95)
    assert found.threshold_s == pytest.approx(done.result.latencies["ttft_s"].at_target.value, rel=0.02)
    assert sum(found.mean_s.values()) == pytest.approx(done.result.latencies["ttft_s"].mean.value)


@pytest.mark.parametrize(
    ("question", "vary", "count"),
    [
        ("run", ["engine.max_num_seqs=8,64", "workload.request_rate=10,20"], 2),
        ("plan", ["slo.tpot_ms=1,20,30"], 1),
        ("run", ["seed=0,1"], 1),
    ],
)
def test_a_sweep_is_shown_as_its_grid_allows(tmp_path, question, vary, count):
    scenario = small(name=NAME, run__max_requests=400, workload__request_rate=10)
    points = grid(scenario, [parse_axis(text) for text in vary], question)
    table = sweeps.sweep(points, question, tmp_path / "answers")
    path = tmp_path / "page" / "sweep.html"
    pages.write_sweep(path, pages.SweepTable(table, list(points[0].values), question), scenario)
    html = page(path)
    assert figures(html) == count
    assert f"{(table['status'] == 'answered').sum()} of {len(points)} scenarios" in html


def test_a_sweep_without_an_answer_still_says_why(tmp_path):
    table = pd.DataFrame({"model": ["x"], "status": ["refused"], "message": ["no such <b>model</b>"]})
    pages.write_sweep(tmp_path / "p" / "s.html", pages.SweepTable(table, ["model"], "run"), small())
    html = page(tmp_path / "p" / "s.html")
    assert figures(html) == 0 and "no such &lt;b&gt;model" in html


def test_a_comparison_shows_every_scenario(tmp_path):
    brief = {"run__max_requests": 400, "workload__request_rate": 10}
    found = compare([small(name=NAME, **brief), small(name="other", fleet__replicas=2, **brief)], seeds=2)
    path = tmp_path / "page" / "compare.html"
    pages.write_comparison(path, found)
    html = page(path)
    assert figures(html) == 1 and html.count("Scenario: ") == 2 and "replicas: 2" in html
