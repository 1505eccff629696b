"""What the engine should reach on one GPU, from targets.json, and what a campaign found: one list for both tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

NOT_MEASURED = "not yet measured"
_FILE = Path(__file__).with_name("targets.json")


@dataclass(frozen=True, slots=True)
class Target:
    """One figure with the value that it must reach (`least`), the aim (`good`), and what others reach.

    All in `unit`, which is `scale` SI units.
    """

    key: str
    what: str
    unit: str
    scale: float
    better: Literal["higher", "lower"]
    least: float
    good: float
    reference: str

    def verdict(self, value: float) -> str:
        """`good`, `pass`, or how far a measured value (SI) is from passing."""
        shown = value / self.scale
        if self._reaches(shown, self.good):
            return "good"
        if self._reaches(shown, self.least):
            return "pass"
        return f"missed by {abs(shown / self.least - 1):.0%}"

    def _reaches(self, shown: float, bound: float) -> bool:
        return shown >= bound if self.better == "higher" else shown <= bound

    def shown(self, value: float | None) -> str:
        """A measured value (SI) in the target's unit."""
        return NOT_MEASURED if value is None else f"{value / self.scale:,.4g} {self.unit}"


def hardware() -> str:
    """The accelerator that the targets are for, as the catalogue calls it."""
    return str(_read()["hardware"])


def load_targets() -> tuple[Target, ...]:
    """The shipped targets, in order of their table."""
    rows = _read()["targets"]
    return tuple(Target(**{"least" if name == "pass" else name: row[name] for name in row}) for row in rows)


def reached(figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """Every target with what was measured of it, for JSON; values in the target's unit, None where not measured."""
    return [
        {
            "key": target.key,
            "what": target.what,
            "unit": target.unit,
            "pass": target.least,
            "good": target.good,
            "reference": target.reference,
            "measured": figures[target.key] / target.scale if target.key in figures else None,
            "verdict": target.verdict(figures[target.key]) if target.key in figures else NOT_MEASURED,
        }
        for target in load_targets()
    ]


def markdown(figures: Mapping[str, float]) -> str:
    """The table of docs/benchmarking.md."""
    lines = [
        f"| one {hardware()} | pass | good | others reach | measured |",
        "|---|--:|--:|---|---|",
    ]
    for target in load_targets():
        bounds = f"{target.least:,g} {target.unit} | {target.good:,g}"
        lines.append(f"| {target.what} | {bounds} | {target.reference} | {_cell(target, figures.get(target.key))} |")
    return "\n".join(lines) + "\n"


def table(figures: Mapping[str, float]) -> Table:
    """For the eye."""
    shown = Table(title=f"Reached against the targets of one {hardware()}", title_justify="left")
    for column in ("", "pass", "good", "others", "measured"):
        shown.add_column(column, justify="left" if not column else "right")
    for target in load_targets():
        bounds = (f"{target.least:,g} {target.unit}", f"{target.good:,g}", target.reference)
        shown.add_row(target.what, *bounds, _cell(target, figures.get(target.key)))
    return shown


def known_figures(figures: Mapping[str, Any]) -> dict[str, float]:
    """Those of `figures` that targets ask for."""
    keys: Sequence[str] = [target.key for target in load_targets()]
    return {key: float(figures[key]) for key in keys if isinstance(figures.get(key), int | float)}


def _cell(target: Target, value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{target.shown(value)}: {target.verdict(value)}"


def _read() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_FILE.read_text())
    return told
