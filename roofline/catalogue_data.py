"""Rows of the shipped catalogue, and of user files with the same schema.

A catalogue file is a JSON object with one list; what a row means is the business of the module that asks for it.
"""

import json
from dataclasses import MISSING, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from roofline.errors import InputError

Row = dict[str, Any]
Built = TypeVar("Built")


@cache
def shipped_rows(kind: str, file: str = "") -> tuple[Row, ...]:
    """Rows of `catalogue/<kind>.json`, or of another `file` there, as shipped; callers do not change them."""
    text = resources.files("roofline").joinpath("catalogue", f"{file or kind}.json").read_text(encoding="utf-8")
    rows: list[Row] = json.loads(text)[kind]
    return tuple(rows)


def user_rows(path: Path, kind: str) -> tuple[Row, ...]:
    """Rows of a user's file `{"<kind>": [...]}`.

    Raises `InputError` where the file is missing, is no JSON, or has no such list of objects.
    """
    rows = read_json_object(path).get(kind)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f'{path} has no list "{kind}" of objects; its schema is that of roofline/catalogue/{kind}.json.'
        )
    return tuple(rows)


def read_json_object(path: Path) -> Row:
    """The JSON object in a file; raises `InputError` naming the file where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, not an object.")
    return value


def row_object(kind: type[Built], row: Row, catalogue: str) -> Built:
    """A row as an object of the dataclass `kind`; raises `InputError` for a missing or unknown field."""
    known = fields(kind)  # type: ignore[arg-type]
    optional = {f.name for f in known if f.default is not MISSING or f.default_factory is not MISSING}
    faults = {
        "lacks": {f.name for f in known} - optional - row.keys(),
        "has unknown fields": row.keys() - {f.name for f in known},
    }
    if any(faults.values()):
        told = " and ".join(f"{what} {', '.join(sorted(names))}" for what, names in faults.items() if names)
        named = row.get("name", row.get("accelerator"))
        raise InputError(
            f"{catalogue} row {named!r} {told}; its schema is that of roofline/catalogue/{catalogue}.json."
        )
    return kind(**row)
