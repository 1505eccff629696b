"""What every test shares: a share of the cores, hypothesis without a stopwatch, interpreted kernels, a browser page.

The GPU tests also run on machines without hypothesis and playwright, so neither is needed to load this file.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Test processes share the cores, and so do the processes that they start. Threads that spin while they wait for each
# other's cores make torch many times slower; set before torch is loaded.
_num_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _num_workers)))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Where there is no GPU, Triton's interpreter runs the kernels on CPU tensors; it has to be asked before triton loads.
HAS_NVIDIA_GPU = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
if not HAS_NVIDIA_GPU:
    os.environ["TRITON_INTERPRET"] = "1"

try:
    import hypothesis
except ModuleNotFoundError:
    pass
else:
    # A loaded machine is no failure: the time limit of a test is pytest-timeout's.
    hypothesis.settings.register_profile("headroom", deadline=None, print_blob=True)
    hypothesis.settings.load_profile("headroom")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium of this machine, driven by playwright; the test is skipped where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser: playwright is not installed")
    # Chromium refuses to run as root inside its sandbox; the pages it sees here are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A fresh playwright page of 1400 x 900 pixels."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900})
    yield context.new_page()
    context.close()
