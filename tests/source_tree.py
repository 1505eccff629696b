"""The project's files as the tests of its structure see them."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE_BY_TOOLS = {"build", "dist", "out", "__pycache__"}


@cache
def tracked_files() -> tuple[str, ...]:
    """Every file of the project, relative to its root: git's list, or a walk where there is no git."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False
    ) if (ROOT / ".git").exists() else None  # fmt: skip
    if listed is not None and listed.returncode == 0:
        return tuple(sorted(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()))
    return tuple(sorted(_walk()))


def _walk() -> list[str]:
    hidden_but_ours = {".ci", ".gitignore", ".streamlit"}
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in hidden_but_ours for part in parts)
        made = any(part in MADE_BY_TOOLS or part.endswith(".egg-info") for part in parts)
        if path.is_file() and not hidden and not made:
            found.append("/".join(parts))
    return found


@cache
def modules(*layers: str) -> dict[str, ast.Module]:
    """Syntax trees by path of the Python files in `layers`: folders, or `app` for the file `app.py`."""
    inside = tuple(f"{layer}/" for layer in layers)
    files = {f"{layer}.py" for layer in layers}
    wanted = [name for name in tracked_files() if name.endswith(".py") and (name.startswith(inside) or name in files)]
    return {name: ast.parse((ROOT / name).read_text()) for name in wanted}


def module_name(path: str) -> str:
    """`engine/core/__init__.py` is `engine.core`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, also inside functions and for type checking only.

    `from engine import core` yields `engine.core`: the name may be a module.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{start}.{alias.name}") for alias in node.names]
    return found
