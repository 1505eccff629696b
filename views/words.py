"""Numbers and outside text as the pages show them: short, with their unit, and never taken for markup."""

import math
import re

from simulator.output.results import Estimate, Money

_AUTOLINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)  # addresses become links without markup
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!$|<>~:^=])")


def plain(text: str) -> str:
    """Text for Markdown that shows as it is: no emphasis, formula, link, image or directive comes of it."""
    return _MARKUP.sub(r"\\\1", _AUTOLINK.sub("\u200b", text))


def seconds(value: float) -> str:
    """`12 ms`, `1.3 s`, `4 min`."""
    if not math.isfinite(value):
        return "unbounded"
    if value < 0.9995:
        return f"{_three_digits(value * 1e3)} ms"
    return f"{_three_digits(value)} s" if value < 600 else f"{value / 60:,.0f} min"


def dollars(value: float) -> str:
    """`$0.0012`, `$0.21`, `$16.00`, `$11,680`, `$1.20 M`."""
    if value >= 1e6:
        return f"${value / 1e6:,.2f} M"
    if 0 < value < 0.1:
        return f"${_three_digits(value)}"
    return f"${value:,.0f}" if value >= 1000 else f"${value:,.2f}"


def dollar_range(money: Money) -> str:
    """The low and the high price, or nothing where they are the same."""
    return "" if money.low == money.high else f"{dollars(money.low)} to {dollars(money.high)}"


def percent(fraction: float) -> str:
    """`99.2 %`; never rounded up to a whole 100."""
    digits = 2 if 0.99 < fraction < 1 else 1 if fraction > 0.1 else 2
    scale = 10**digits
    return f"{math.floor(fraction * 100 * scale + 1e-9) / scale:.{digits}f} %" if fraction < 1 else "100 %"


def rate(value: float) -> str:
    """`20`, `0.25`, `1,250`: three digits, without trailing zeros."""
    return _three_digits(value)


def gigabytes(size_bytes: float) -> str:
    """`16.1 GB`, decimal."""
    return f"{size_bytes / 1e9:,.1f} GB"


def interval(estimate: Estimate, show=seconds) -> str:
    """The 95 % confidence interval, or that there is too little to tell."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "too few requests for an interval"
    return f"{show(estimate.low)} to {show(estimate.high)}"


def big(number: float) -> str:
    """`842`, `12.3 k`, `1.25 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= 0.9995 * size:
            return f"{_three_digits(number / size)}{unit}"
    return _three_digits(number)


def count(number: int, noun: str) -> str:
    """`1 GPU`, `4 GPUs`."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def ordinal(percentile: float) -> str:
    """`p99`, `p99.9`."""
    return f"p{percentile:g}"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
