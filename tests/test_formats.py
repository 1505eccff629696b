"""docs/formats.md describes exactly the columns that are written."""

import re

import pytest

from engine.core.trace_schema import OPTIONAL_REQUEST_COLUMNS, REQUEST_COLUMNS, STEP_COLUMNS
from tests.source_tree import ROOT


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ("steps.parquet", STEP_COLUMNS.keys()),
        ("requests.parquet", REQUEST_COLUMNS.keys() | OPTIONAL_REQUEST_COLUMNS.keys()),
    ],
)
def test_documented_columns_are_those_written(section, columns):
    text = (ROOT / "docs" / "formats.md").read_text().split(f"### {section}\n", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == columns
