"""Every example runs, in a reduced form: fewer requests, the same questions."""

import subprocess
import sys

import pytest

from simulator.deployment import resolve
from simulator.planning.criteria import is_clear
from simulator.planning.steady import steady_run
from simulator.scenario_file import load, to_yaml, with_changes
from tests.simulator.scenarios import small
from tests.source_tree import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
REDUCED = {"run.min_requests": 100, "run.max_requests": 400, "fleet.replicas": 4}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_simulates(path):
    result = steady_run(resolve(with_changes(load(path), REDUCED)), 4, is_clear)
    assert result.num_requests > 0
    assert result.targets_s


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_says_how_it_is_run(path):
    assert f"examples/{path.name}" in path.read_text()


def test_the_batch_script_prints_a_table(tmp_path):
    scenario = tmp_path / "small.yaml"
    scenario.write_text(to_yaml(small()))
    command = [sys.executable, str(ROOT / "examples" / "size_for_load.py"), str(scenario), "20", "60"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert len(rows) == 3
    assert rows[1].startswith("20,")


def test_the_batch_script_has_no_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "size_for_load.py"), "nowhere.yaml", "20"]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: nowhere.yaml does not exist")
