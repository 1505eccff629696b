"""The dashboard in a headless Chromium: it loads, answers, keeps its word in the URL, and says nothing to outsiders."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.serving import dashboard

pytestmark = pytest.mark.browser

WAIT_MS = 120_000
SMALL = "model=qwen3-0.6b&rate=2&prompt=100&output=8&prompt_cv=0&output_cv=0"


@pytest.fixture(scope="module")
def address():
    with dashboard() as address:
        yield address


@pytest.fixture
def watched(page):
    """The page, and what went wrong or outside on it."""
    page.set_default_timeout(WAIT_MS)
    faults = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if _is_outside(request.url) else None)
    return page, faults


def _is_outside(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname != "127.0.0.1"


def test_answers_and_carries_a_changed_input_in_the_url(watched, address):
    page, faults = watched
    page.goto(f"{address}?{SMALL}")
    page.get_by_text("Before any simulation").wait_for()
    page.get_by_role("heading", name="You need 1 GPU").wait_for()

    rate = page.get_by_role("spinbutton", name="Requests per second, whole fleet")
    rate.fill("3")
    rate.press("Enter")
    page.wait_for_url(re.compile(r"[?&]rate=3(&|$)"))
    page.get_by_role("heading", name="for 3 requests/s of qwen3-0.6b").wait_for()
    link = page.url
    assert parse_qs(urlsplit(link).query)["model"] == ["qwen3-0.6b"]

    other = page.context.browser.new_context()
    try:
        received = other.new_page()
        received.goto(link)
        received.get_by_role("heading", name="for 3 requests/s of qwen3-0.6b").wait_for(timeout=WAIT_MS)
        _await_value(received, "Requests per second, whole fleet", "3")
        _await_value(received, "Output tokens, mean", "8")
    finally:
        other.close()
    page.locator(".js-plotly-plot").nth(1).wait_for()
    assert not faults


def _await_value(page, label, value):
    """Inputs show their default for a moment before the session's value arrives."""
    field = f"document.querySelector('input[aria-label=\"{label}\"]')"
    page.wait_for_function(f"{field}?.value === '{value}'", timeout=WAIT_MS)


def test_a_preset_is_one_word_in_the_url(watched, address):
    page, faults = watched
    page.goto(address)
    page.get_by_role("combobox", name=re.compile("Start from")).click()
    page.get_by_role("option", name="code completion").click()
    page.wait_for_url(re.compile(r"preset=code"))
    _await_value(page, "Output tokens, mean", "28")
    assert parse_qs(urlsplit(page.url).query) == {"preset": ["code completion"]}
    assert not faults


def test_a_hostile_url_gets_a_message(watched, address):
    page, faults = watched
    page.goto(f"{address}?rate=1e999&model=%3Cimg%20src=x%20onerror=alert(1)%3E&nonsense=%5Bx%5D(http://example.com)")
    page.get_by_text("This link does not fit the page").wait_for()
    page.get_by_text("it must be a number from 0.01 to 100,000").wait_for()
    assert page.locator("a[href*='example.com'], img[src='x']").count() == 0
    assert not faults


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_page(watched, address, width):
    page, _ = watched
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address}?{SMALL}")
    page.get_by_role("heading", name="You need 1 GPU").wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    main = page.locator("[data-testid=stMain]")
    assert main.evaluate("element => element.scrollWidth - element.clientWidth") <= 1
