"""Makes the pictures of the README from the running dashboard: `python -m docs.make_screenshots`."""

import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.browser.serving import dashboard

PICTURE = Path(__file__).parent / "dashboard.png"
SIZE = {"width": 1280, "height": 1240}
WAIT_MS = 300_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """One picture: the page Plan with its answer and its charts."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise SystemExit(f"No browser: install one of {', '.join(BROWSERS)}.")
    with dashboard() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(WAIT_MS)
        page.goto(address)
        _await_answer(page)
        page.screenshot(path=PICTURE)
        browser.close()
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


def _await_answer(page: Any) -> None:
    """Until everything is simulated and nothing is being drawn any more."""
    page.get_by_role("heading", name="You need").wait_for()
    page.locator(".js-plotly-plot").nth(1).wait_for()
    page.wait_for_function("!document.body.innerText.includes('Simulating ')")
    page.wait_for_timeout(1500)


if __name__ == "__main__":
    main()
