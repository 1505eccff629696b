"""What an hour of an accelerator costs: rented at a low, a typical and a high list price, or owned.

A price is an input that users overwrite; the shipped rows say how old they are.
"""

from dataclasses import dataclass
from datetime import date as calendar_date
from pathlib import Path

from roofline.catalogue_data import Row, row_object, shipped_rows, user_rows
from roofline.errors import InputError

HOURS_PER_YEAR = 8760.0
STALE_AFTER_MONTHS = 6


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per accelerator and hour."""

    accelerator: str
    low: float
    typical: float
    high: float
    source: str
    date: str  # year-month of the collection
    estimate: bool = False  # one source alone

    def __post_init__(self) -> None:
        """Refuse prices out of order, and a date that is none."""
        for value in (self.low, self.typical, self.high):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"price of {self.accelerator} holds {value!r}; it must be a number.")
        if not 0 <= self.low <= self.typical <= self.high < float("inf"):
            raise InputError(
                f"price of {self.accelerator} has low {self.low}, typical {self.typical}, high {self.high}; "
                "they must rise and not be negative."
            )
        _months(self.date, self.accelerator)

    def age_warning(self, today: calendar_date) -> str | None:
        """A sentence once the row is older than half a year, in which list prices move; else None."""
        age = 12 * today.year + today.month - _months(self.date, self.accelerator)
        if age <= STALE_AFTER_MONTHS:
            return None
        return f"The price of {self.accelerator} is {age} months old ({self.date}); state today's."


@dataclass(frozen=True, slots=True)
class OwnedHardware:
    """An accelerator that is bought: capital written off in a straight line, power at the meter, and running it.

    `capital_usd` covers its part of server and network. `kw_all_in` is drawn at the utility's meter, cooling included;
    from a power at the server, `at_the_meter` makes it.
    """

    accelerator: str
    capital_usd: float
    kw_all_in: float
    years: float = 4.0  # of depreciation
    usd_per_kwh: float = 0.08
    upkeep_usd_per_year: float = 0.0  # space, repair and people, per accelerator

    def __post_init__(self) -> None:
        """Refuse negative costs and a life of no length."""
        for name in ("capital_usd", "kw_all_in", "usd_per_kwh", "upkeep_usd_per_year"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(
                    f"owned {self.accelerator} has {name} = {getattr(self, name)}; it must not be negative."
                )
        if not 0 < self.years < float("inf"):
            raise InputError(f"owned {self.accelerator} is written off in {self.years} years; it must be positive.")

    @property
    def capital_usd_per_hour(self) -> float:
        """Depreciation by the hour, whether it is used or not."""
        return self.capital_usd / (self.years * HOURS_PER_YEAR)

    @property
    def power_usd_per_hour(self) -> float:
        """Electricity by the hour at the all-in power."""
        return self.kw_all_in * self.usd_per_kwh

    @property
    def usd_per_hour(self) -> float:
        """All of it by the hour."""
        return self.capital_usd_per_hour + self.power_usd_per_hour + self.upkeep_usd_per_year / HOURS_PER_YEAR


@dataclass(frozen=True, slots=True)
class OwnedRow:
    """What the catalogue knows of owning an accelerator; both figures are estimates."""

    accelerator: str
    capital_usd: float | None
    kw_all_in: float
    source: str
    date: str
    estimate: bool = True

    def hardware(self, capital_usd: float | None = None) -> OwnedHardware:
        """The accelerator at the user's price, or else at the row's; `InputError` where neither is known."""
        paid = self.capital_usd if capital_usd is None else capital_usd
        if paid is None:
            raise InputError(f"no purchase price is known for {self.accelerator}; state what it costs you.")
        return OwnedHardware(self.accelerator, paid, self.kw_all_in)


def at_the_meter(watts: float, power_usage_effectiveness: float) -> float:
    """Kilowatts at the utility's meter of `watts` at the server; the ratio is at least 1."""
    if not power_usage_effectiveness >= 1:
        raise InputError(f"power usage effectiveness is {power_usage_effectiveness}; it is at least 1.")
    return watts / 1e3 * power_usage_effectiveness


def price(accelerator: str, file: Path | None = None) -> Price:
    """The price row of a catalogue name; rows of the user's `file` come first.

    Raises `InputError` where there is none.
    """
    return row_object(Price, _row("prices", "price", accelerator, file), "prices")


def known_price(accelerator: str, usd_per_hour: float | None = None, file: Path | None = None) -> Price | None:
    """The user's own price where one is given, else the row; None where there is none. Raises for a wrong row."""
    if usd_per_hour is not None:
        today = calendar_date.today().isoformat()[:7]
        return Price(accelerator, usd_per_hour, usd_per_hour, usd_per_hour, "stated by you", today)
    if not any(str(row.get("accelerator")).lower() == accelerator.lower() for row in _rows("prices", file)):
        return None
    return price(accelerator, file)


def owned(accelerator: str, file: Path | None = None) -> OwnedRow:
    """What owning an accelerator takes; rows `owned` of the user's `file` come first. Raises as `price` does."""
    return row_object(OwnedRow, _row("owned", "purchase price or power", accelerator, file), "prices")


def _row(kind: str, what: str, accelerator: str, file: Path | None) -> Row:
    rows = _rows(kind, file)
    for row in rows:
        if str(row.get("accelerator")).lower() == accelerator.lower():
            return row
    known = ", ".join(str(row.get("accelerator")) for row in rows)
    raise InputError(f"no {what} is known for accelerator {accelerator!r}, only for {known}; give one yourself.")


def _rows(kind: str, file: Path | None) -> list[Row]:
    return [*(user_rows(file, kind) if file else ()), *shipped_rows(kind, "prices")]


def _months(text: str, accelerator: str) -> int:
    """Months since the year 0 of a year-month."""
    try:
        year, month = (int(part) for part in str(text).split("-")[:2])
    except ValueError as error:
        raise InputError(f"price of {accelerator} has date {text!r}; write it as 2026-11.") from error
    return 12 * year + month
