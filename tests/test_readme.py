"""The README is true: its file list is the tree, and its commands exist."""

import ast
import re
import shlex
import subprocess
import sys

import pytest

from tests.source_tree import ROOT, tracked_files

README = (ROOT / "README.md").read_text()
COMMAND_LINES = ("engine", "simulator", "roofline", "calibration")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def _listed() -> dict[str, str]:
    """The README's tree as {path: what it says}; two spaces of indentation a level, folders end in a slash."""
    listed: dict[str, str] = {}
    parents: list[str] = []
    for line in "".join(_blocks("tree")).splitlines():
        match = re.fullmatch(r"( *)(\S+)(?: +(\S.*))?", line)
        assert match, f"README.md: this line of the tree is not `name  what it is`: {line!r}"
        depth = len(match[1]) // 2
        assert len(match[1]) % 2 == 0 and depth <= len(parents), f"README.md: odd indentation in the tree: {line!r}"
        path = "".join(parents[:depth]) + match[2]
        assert path not in listed, f"README.md lists {path} twice."
        listed[path] = match[3] or ""
        parents[depth:] = [match[2]] if match[2].endswith("/") else []
    return listed


def _to_list() -> set[str]:
    """Every folder and file, but packages' `__init__.py` and the files in folders of tests: their folder's line."""
    paths = set()
    for name in tracked_files():
        folders = name.split("/")[:-1]
        paths |= {"/".join(folders[:depth]) + "/" for depth in range(1, len(folders) + 1)}
        if not name.endswith("/__init__.py") and not (name.startswith("tests/") and len(folders) > 1):
            paths.add(name)
    return paths


def _suggestion(path: str) -> str:
    """A line to start from, with the first line of the module's docstring."""
    source = ROOT / path / "__init__.py" if path.endswith("/") else ROOT / path
    docstring = ast.get_docstring(ast.parse(source.read_text())) if source.suffix == ".py" and source.exists() else None
    return f"{path}  {docstring.splitlines()[0] if docstring else ''}"


def test_file_list_is_the_tree():
    listed, actual = _listed(), _to_list()
    missing = "\n".join(map(_suggestion, sorted(actual - listed.keys())))
    gone = "\n".join(sorted(listed.keys() - actual))
    assert listed.keys() == actual, f"README.md does not list:\n{missing}\nand lists what is not there:\n{gone}"
    silent = [path for path, what in listed.items() if not what]
    assert not silent, f"README.md says nothing about {', '.join(silent)}"


def _commands() -> list[str]:
    lines = [line for block in _blocks("console") for line in block.splitlines()]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ ")]
    return sorted({shlex.join(command) for command in words})


def test_readme_shows_commands():
    assert {"make demo", "make test"} <= set(_commands())


def _run(package: str, arguments: list[str], folder) -> subprocess.CompletedProcess:
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {package}.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("line", _commands())
def test_command_runs(line, tmp_path):
    """A make target exists; a command line knows every option given; `roofline`, which is quick, runs for real."""
    program, *arguments = shlex.split(line)
    program = program.removeprefix(".venv/bin/")
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        unknown = [target for target in arguments if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE)]
        assert not unknown, f"README.md: `{line}`: the Makefile has no target {', '.join(unknown)}"
        return
    assert program in COMMAND_LINES, f"README.md: `{line}`: this test cannot check {program}; extend it"
    done = _run(program, [*arguments, "--help"], tmp_path)
    assert done.returncode == 0, f"README.md: `{line}` is not understood:\n{done.stderr}"
    if program == "roofline":
        done = _run(program, arguments, tmp_path)
        assert done.returncode == 0, f"README.md: `{line}` fails:\n{done.stderr}"
