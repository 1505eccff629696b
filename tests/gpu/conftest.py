"""`python -m pytest tests/gpu` runs these tests, and skips them with the reason where there is no GPU.

They need torch, triton, numpy and pytest, and no other package of the development set.
"""

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """The default selection leaves GPU tests out; whoever names this folder and no other tests wants them in.

    There, a warning is a warning: versions of torch and triton are the machine's, not the ones we test elsewhere.
    """
    asked = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    if not all(path == FOLDER or FOLDER in path.parents for path in asked):
        return
    config.addinivalue_line("filterwarnings", "default")
    if config.option.markexpr in config.getini("addopts"):
        config.option.markexpr = "gpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is a GPU test."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True, scope="session")
def device() -> str:
    """Where the kernels run; without a GPU every test of the folder is skipped."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU: torch.cuda.is_available() is False")
    assert os.environ.get("TRITON_INTERPRET", "0") == "0", "TRITON_INTERPRET replaces the kernels; unset it"
    return "cuda"
