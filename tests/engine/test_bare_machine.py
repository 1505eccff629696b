"""The engine and its benchmarks on a machine that has torch and little else, as GPU machines are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the project's other parts bring along, and what a GPU machine lacks.
ABSENT = (
    "pydantic",
    "simpy",
    "plotly",
    "streamlit",
    "fastapi",
    "uvicorn",
    "ddsketch",
    "psutil",
    "gguf",
    "transformers",
)

ON_A_BARE_MACHINE = """
import importlib, os, sys

_, absent, modules, *arguments = sys.argv

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent.split(",") and asked_by_the_project():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def asked_by_the_project():
    # Whatever other packages bring along for themselves (typer takes pydantic) is theirs.
    frame = sys._getframe(2)
    while "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    asker = frame.f_code.co_filename
    return "site-packages" not in asker and asker.startswith((os.getcwd() + os.sep, "<string>"))

sys.meta_path.insert(0, Refuse())
for name in modules.split(","):
    importlib.import_module(name)
sys.argv[1:] = arguments
importlib.import_module("engine.cli").main()
"""


def bare(*arguments: str, modules: tuple[str, ...] = ("engine.cli",)) -> "subprocess.CompletedProcess[str]":
    """Run the command line `engine` after loading `modules`, without the packages of `ABSENT`."""
    command = [sys.executable, "-c", ON_A_BARE_MACHINE, ",".join(ABSENT), ",".join(modules), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_module_of_the_engine_loads():
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "engine").rglob("*.py")]
    names = tuple(sorted(".".join(path.parts) for path in paths if path.name != "__init__"))
    assert {"engine.bench.campaign", "engine.bench.stages", "engine.kernels.paged_decode"} < set(names)
    done = bare("bench", "--help", modules=names)
    assert done.returncode == 0 and "campaign" in done.stdout, done.stderr[-2000:]


def test_random_weights_are_measured(tmp_path):
    done = bare(
        "bench", "throughput", "--device", "cpu", "--model", "smollm2-135m", "--load-format", "dummy",
        "--num-requests", "2", "--longest", "4", "--max-model-len", "64", "--out", str(tmp_path / "trace"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["throughput"]["output_tokens"] == 8
    assert (tmp_path / "trace" / "steps.parquet").stat().st_size > 0


def test_the_refusal_refuses():
    done = bare("--help", modules=("pydantic",))
    assert done.returncode == 1 and "No module named 'pydantic'" in done.stderr


@pytest.mark.model
def test_a_gguf_file_says_which_package_it_needs():
    done = bare("generate", "hello", "--device", "cpu", "--model", "smollm2-135m")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "gguf" in done.stderr and len(done.stderr.splitlines()) == 1
