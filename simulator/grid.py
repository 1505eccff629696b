"""A grid of scenarios: any field may vary, and every point has a key that stands for all its answer depends on."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from calibration.profile import SHIPPED
from roofline.errors import InputError
from simulator.scenario import Scenario
from simulator.scenario_file import FILE_FIELDS, value_at, with_changes

Question = Literal["run", "plan", "capacity"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
MAX_POINTS = 100_000
ROW_FORMAT = 1  # raised when a stored answer's columns change their meaning
HEADER_BYTES = 16_000_000  # of a model file: what says its shape comes before the weights

_SPAN = re.compile(r"(-?\d[\d.e+-]*)\.\.(-?\d[\d.e+-]*):(\d+)")


@dataclass(frozen=True, slots=True)
class Axis:
    """The values that one field takes, by its dotted name."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One scenario of a grid and the values that set it apart, by field."""

    scenario: Scenario
    values: Mapping[str, Any]
    key: str  # the hash of all that its answer depends on


def parse_axis(text: str) -> Axis:
    """An axis from `engine.max_num_seqs=64,128` or `workload.request_rate=10..50:5` (five values, evenly spaced).

    Values are YAML, so a value may be a whole section: `hardware={accelerator: H100},{accelerator: H200}`.
    """
    field, sign, values = (part.strip() for part in text.partition("="))
    example = "write for example engine.max_num_seqs=64,128,256 or workload.request_rate=10..50:5"
    if not sign or not field or not values:
        raise InputError(f"{text!r} is no field with values; {example}.")
    if span := _SPAN.fullmatch(values):
        return Axis(field, _span(text, *span.groups()))
    try:
        found = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError as error:
        raise InputError(f"the values in {text!r} are not understood; {example}.") from error
    return Axis(field, tuple(found))


def grid(scenario: Scenario, axes: Sequence[Axis], question: Question = "run") -> list[Point]:
    """Every combination of the axes' values, the last axis fastest; InputError for one that is no scenario."""
    fields = [axis.field for axis in axes]
    if repeated := [field for field in fields if fields.count(field) > 1]:
        raise InputError(f"{repeated[0]} varies twice; give all of its values at once.")
    if inside := [(a, b) for a in fields for b in fields if b.startswith(f"{a}.")]:
        raise InputError(
            f"{inside[0][0]} and {inside[0][1]} vary both, and one is part of the other; vary one of them."
        )
    count = prod(len(axis.values) for axis in axes)
    if count > MAX_POINTS:
        raise InputError(f"the grid has {count:,} points, and at most {MAX_POINTS:,} are simulated; take fewer values.")
    points = []
    digests = _Digests()
    for values in product(*(axis.values for axis in axes)):
        changes = dict(zip(fields, values, strict=True))
        told = ", ".join(f"{field}={value}" for field, value in changes.items())
        changed = with_changes(scenario, changes, told or "the scenario")
        points.append(Point(changed, changes, digests.key(changed, question)))
    return points


class _Digests:
    """Content hashes; a file that many points name is read once."""

    def __init__(self) -> None:
        self._of_file: dict[Path, str] = {}

    def key(self, scenario: Scenario, question: Question) -> str:
        """The hash of all that an answer depends on; the scenario's name is not."""
        content = {
            "format": ROW_FORMAT, "version": version("llm-headroom"), "question": question,
            "scenario": scenario.model_dump(mode="json", exclude={"name"}), "files": self._files(scenario),
        }  # fmt: skip
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def _files(self, scenario: Scenario) -> dict[str, str]:
        """The digest of every file that the scenario names, by field."""
        found = {}
        for field in FILE_FIELDS:
            value = value_at(scenario, field)
            for path in () if value is None else (SHIPPED / f"{value}.json", Path(value)):
                if path.exists():
                    found[field] = self._digest(path, is_model=field == "model")
                    break
        return found

    def _digest(self, path: Path, is_model: bool) -> str:
        if path not in self._of_file:
            name = "config.json" if is_model else "*"
            files = sorted(file for file in path.rglob(name) if file.is_file()) if path.is_dir() else [path]
            digest = hashlib.sha256()
            for file in files:
                with file.open("rb") as content:
                    digest.update(file.name.encode() + content.read(HEADER_BYTES if is_model else -1))
            self._of_file[path] = digest.hexdigest()
        return self._of_file[path]


def _span(text: str, low: str, high: str, count: str) -> tuple[Any, ...]:
    try:
        ends, number = (float(low), float(high)), int(count)
    except ValueError:
        raise InputError(f"{text!r} is no range; write for example workload.request_rate=10..50:5.") from None
    if number < 2:
        raise InputError(f"{text!r} asks for {number} values between two ends; ask for at least 2.")
    values = np.linspace(*ends, number).tolist()
    whole = all(value.is_integer() for value in values) and low.lstrip("-").isdigit() and high.lstrip("-").isdigit()
    return tuple(int(value) for value in values) if whole else tuple(float(f"{value:.12g}") for value in values)
