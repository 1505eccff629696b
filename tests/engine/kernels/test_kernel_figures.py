"""docs/kernels.md shows what is there: its picture is the one that is drawn, its table names every configuration."""

import pytest

from engine.kernels.ahead_of_time import shipped
from engine.kernels.triton_language import HAS_TRITON
from tests.source_tree import ROOT

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")


def test_the_picture_is_the_one_that_is_drawn():
    from docs.make_kernel_figures import PICTURE, picture

    assert PICTURE.read_text(encoding="utf-8") == picture(), "run `python -m docs.make_kernel_figures`"


def test_the_table_names_every_configuration():
    page = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")}
    names = {" ".join(word for word in config.name.split() if not word.startswith("sm_")) for config in shipped()}
    assert names <= rows, "run `python -m docs.make_kernel_figures`"
