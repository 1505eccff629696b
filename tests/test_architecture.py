"""The shape of the house: which way imports point, what loads without torch, and how long anything may be."""

import ast
import subprocess
import sys
import tomllib
from pathlib import PurePosixPath

import pytest

from tests.source_tree import ROOT, imported, module_name, modules, tracked_files

LAYERS = ("roofline", "engine", "calibration", "simulator", "views", "app")  # each may import those before it
DRAWS = "roofline/figures.py"  # needs plotly, and is loaded where a figure is asked for
TORCH_FREE = ("roofline", "engine/core", "calibration", "simulator", "views", "app")

MODULE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 6


def _layer(path: str) -> str:
    return path.split("/", maxsplit=1)[0].removesuffix(".py")


def _imports(*layers: str) -> list[tuple[str, str, str]]:
    """(file:line, importing layer, dotted name imported)."""
    return [
        (f"{path}:{line}", _layer(path), name)
        for path, tree in modules(*layers).items()
        for line, name in imported(tree)
    ]


def test_imports_point_down_only():
    wrong = [
        f"{place}: {layer} imports {name}"
        for place, layer, name in _imports(*LAYERS)
        if (target := name.split(".")[0]) in LAYERS and LAYERS.index(target) > LAYERS.index(layer)
    ]
    assert not wrong, f"Imports point down only ({' <- '.join(LAYERS)}):\n" + "\n".join(wrong)


def test_imports_are_absolute():
    wrong = [f"{place}: {name}" for place, _, name in _imports(*LAYERS) if name.startswith(".")]
    assert not wrong, "Relative imports hide the layer they reach into:\n" + "\n".join(wrong)


def test_planner_takes_only_the_core_of_the_engine():
    wrong = [
        f"{place}: {name}"
        for place, _, name in _imports("calibration", "simulator")
        if name.split(".")[0] == "engine" and name.split(".")[1:2] != ["core"]
    ]
    assert not wrong, "calibration and simulator take from engine only engine.core:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("layers", "banned", "why"),
    [
        (TORCH_FREE, {"torch", "triton"}, "the planner runs on a laptop without them"),
        (
            ("roofline", "engine"),
            {"pydantic", "simpy", "plotly", "streamlit", "ddsketch"},
            "the engine runs on GPU machines that have torch and little else",
        ),
    ],
)
def test_packages_that_a_layer_does_without(layers, banned, why):
    wrong = [
        f"{place}: {name}"
        for place, _, name in _imports(*layers)
        if name.split(".")[0] in banned and not place.startswith(DRAWS)
    ]
    assert not wrong, f"{', '.join(layers)} import none of {', '.join(sorted(banned))} ({why}):\n" + "\n".join(wrong)


IMPORT_WITHOUT_TORCH = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "triton"):
            raise ModuleNotFoundError(f"{name} is not to be loaded here", name=name)

sys.meta_path.insert(0, Refuse())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_planner_loads_without_torch():
    names = [module_name(path) for path in modules(*TORCH_FREE) if path.split("/")[0] != "views"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT_TORCH, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"A module of the planner does not load without torch:\n{done.stderr[-2000:]}"


def test_data_files_are_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = [f"{package}/{pattern}" for package, globs in settings.items() for pattern in globs]
    data = [path for path in tracked_files() if path.split("/")[0] in LAYERS and not path.endswith(".py")]
    left_out = [path for path in data if not any(PurePosixPath(path).match(pattern) for pattern in patterns)]
    assert not left_out, "pyproject.toml's package-data leaves these out of an installation:\n" + "\n".join(left_out)


def test_folders_of_tests_are_packages():
    tests = {path.rsplit("/", 1)[0] for path in tracked_files() if path.startswith("tests/") and path.endswith(".py")}
    plain = sorted(folder for folder in tests if f"{folder}/__init__.py" not in tracked_files())
    assert not plain, "Without an __init__.py, tests/engine could pass for the package engine:\n" + "\n".join(plain)


def _python_files() -> list[str]:
    return [path for path in tracked_files() if path.endswith(".py")]


def test_modules_are_short():
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in _python_files()}
    long = [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > MODULE_LINES]
    assert not long, f"A module has at most {MODULE_LINES} lines; split it by noun:\n" + "\n".join(long)


def test_every_module_says_what_it_is_for():
    files = [path for path in _python_files() if not path.startswith("tests/")]
    silent = [path for path in files if not ast.get_docstring(ast.parse((ROOT / path).read_text()))]
    assert not silent, "These modules have no docstring:\n" + "\n".join(silent)


def _functions(path: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse((ROOT / path).read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_functions_are_short():
    long = [
        f"{path}:{function.lineno} {function.name}: {lines} lines"
        for path in _python_files()
        for function in _functions(path)
        if (lines := function.end_lineno - function.lineno + 1) > FUNCTION_LINES
    ]
    assert not long, f"A function has at most {FUNCTION_LINES} lines:\n" + "\n".join(long)


def _num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return len(arguments) - (arguments[:1] in (["self"], ["cls"])) + len(function.args.kwonlyargs)


def _is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A typer command's parameters are its options."""
    called = (decorator.func for decorator in function.decorator_list if isinstance(decorator, ast.Call))
    return any(isinstance(func, ast.Attribute) and func.attr in ("command", "callback") for func in called)


def _is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """What runs on a device takes pointers and numbers, and no dataclass."""
    decorators = [d.func if isinstance(d, ast.Call) else d for d in function.decorator_list]
    return any(isinstance(decorator, ast.Name) and decorator.id == "jit" for decorator in decorators)


def test_functions_take_few_parameters():
    many = [
        f"{path}:{function.lineno} {function.name}: {count} parameters"
        for path in _python_files()
        if not path.startswith("tests/")
        for function in _functions(path)
        if (count := _num_parameters(function)) > PARAMETERS and not (_is_command(function) or _is_kernel(function))
    ]
    assert not many, f"A function takes at most {PARAMETERS} parameters; a dataclass is missing:\n" + "\n".join(many)
