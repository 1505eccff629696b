"""Numbers as people read them, and outside text that stays text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.output.results import Estimate, Money
from views import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "12.3 ms"), (0.5, "500 ms"), (0.9996, "1 s"), (1.0, "1 s"), (1.2345, "1.23 s"), (59.6, "59.6 s"),
        (900, "15 min"), (0, "0 ms"), (math.inf, "unbounded"), (math.nan, "unbounded"), (0.0000021, "0.0021 ms"),
    ],
)  # fmt: skip
def test_seconds(value, text):
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2123, "$0.21"),
        (16, "$16.00"),
        (11_680.4, "$11,680"),
        (1_204_000, "$1.20 M"),
        (0.0012, "$0.0012"),
        (0, "$0.00"),
    ],
)
def test_dollars(value, text):
    assert words.dollars(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100 %"), (0.99999, "99.99 %"), (0.9934, "99.34 %"), (0.833, "83.3 %"), (0.05, "5.00 %"), (0.0, "0.00 %")],
)
def test_percent_never_rounds_up_to_all(value, text):
    assert words.percent(value) == text


@given(st.floats(1e-6, 1e9))
def test_three_digits_stay_within_half_a_percent(value):
    assert float(words.rate(value).replace(",", "")) == pytest.approx(value, rel=5.01e-3)


def test_an_infinite_interval_says_why():
    assert "too few" in words.interval(Estimate(1.0, 0.5, math.inf))
    assert words.interval(Estimate(1.0, 0.5, 2.0)) == "500 ms to 2 s"


def test_one_price_has_no_range():
    assert words.dollar_range(Money(2, 2, 2)) == ""
    assert words.dollar_range(Money(1, 2, 3)) == "$1.00 to $3.00"


def test_plain_text_leaves_no_markup():
    hostile = "![x](http://a.b/c.png) **b** `c` $d$ :red[e] <img> # f www.g.h i@j.k"
    shown = words.plain(hostile)
    assert shown.replace("\\", "").replace("\u200b", "") == hostile
    for start in ("![", "](", "**", "://", " www.", " $", ":red[", " <img"):
        assert start not in shown
