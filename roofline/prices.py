"""What an hour of an accelerator costs on the market: a low, a typical and a high list price, with their date.

A price is an input that users overwrite; the shipped rows say how old they are.
"""

from dataclasses import dataclass
from pathlib import Path

from roofline.catalogue_data import shipped_rows, user_rows
from roofline.errors import InputError


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
        """Refuse prices out of order."""
        if not 0 <= self.low <= self.typical <= self.high:
            raise InputError(
                f"price of {self.accelerator} has low {self.low}, typical {self.typical}, high {self.high}; "
                "they must rise and not be negative."
            )


def price(accelerator: str, file: Path | None = None) -> Price:
    """The price row of a catalogue name; rows of the user's `file` come first.

    Raises `InputError` where there is none.
    """
    rows = [*(user_rows(file, "prices") if file else ()), *shipped_rows("prices")]
    for row in rows:
        if str(row.get("accelerator")).lower() == accelerator.lower():
            try:
                return Price(**row)
            except TypeError as error:
                raise InputError(
                    f"price row of {accelerator} does not fit roofline/catalogue/prices.json: {error}."
                ) from error
    known = ", ".join(str(row.get("accelerator")) for row in rows)
    raise InputError(f"no price is known for accelerator {accelerator!r}, only for {known}; give one yourself.")
