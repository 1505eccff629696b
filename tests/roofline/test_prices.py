import json
from dataclasses import replace
from datetime import date

import pytest

from roofline.catalogue_data import shipped_rows
from roofline.errors import InputError
from roofline.hardware import accelerator
from roofline.nodes import node_of
from roofline.prices import OwnedHardware, at_the_meter, owned, price


def test_a_price_warns_once_it_is_older_than_half_a_year():
    row = price("H100")
    assert row.date == "2026-11"
    assert row.age_warning(date(2027, 5, 31)) is None
    assert "7 months old (2026-11)" in row.age_warning(date(2027, 6, 1))


def test_an_owned_accelerator_costs_its_parts_by_the_hour():
    mine = OwnedHardware("H100", capital_usd=35_040, kw_all_in=1.5, years=4, usd_per_kwh=0.1, upkeep_usd_per_year=876)
    assert mine.capital_usd_per_hour == pytest.approx(1.0)  # 35,040 hours are four years
    assert mine.power_usd_per_hour == pytest.approx(0.15)
    assert mine.usd_per_hour == pytest.approx(1.25)
    assert replace(mine, years=8).usd_per_hour == pytest.approx(0.75)


@pytest.mark.parametrize("row", shipped_rows("owned", "prices"), ids=lambda row: row["accelerator"])
def test_owned_rows_draw_more_than_the_accelerator_and_cost_less_than_renting(row):
    found = owned(row["accelerator"])
    assert found.kw_all_in * 1e3 > accelerator(found.accelerator).tdp_w
    assert found.estimate
    if found.capital_usd is not None:
        assert found.hardware().usd_per_hour < price(found.accelerator).typical


def test_power_at_the_meter_is_near_the_all_in_figure():
    node = node_of("DGX-H100")
    assert at_the_meter(node.power_w / node.accelerators, 1.35) == pytest.approx(owned("H100").kw_all_in, rel=0.01)
    with pytest.raises(InputError, match=r"effectiveness is 0\.9"):
        at_the_meter(100, 0.9)


def test_an_unknown_purchase_price_has_to_be_stated():
    with pytest.raises(InputError, match="no purchase price is known for MI300X"):
        owned("MI300X").hardware()
    assert owned("MI300X").hardware(20_000).capital_usd == 20_000
    with pytest.raises(InputError, match="no purchase price or power is known for accelerator 'L4'"):
        owned("L4")


def test_files_of_a_user_come_first(tmp_path):
    file = tmp_path / "mine.json"
    row = {"accelerator": "L4", "capital_usd": 2500, "kw_all_in": 0.15, "source": "invoice", "date": "2026-11"}
    file.write_text(json.dumps({"owned": [row]}))
    assert owned("L4", file).hardware().capital_usd == 2500
    assert owned("H100", file) == owned("H100")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 5}, "must rise"),
        ({"typical": "three"}, "holds 'three'"),
        ({"date": "lately"}, "'lately'"),
        ({"tax": 1}, "unknown fields tax"),
    ],
)
def test_a_wrong_price_row_is_refused(tmp_path, change, message):
    file = tmp_path / "mine.json"
    row = {"accelerator": "H100", "low": 1, "typical": 2, "high": 3, "source": "me", "date": "2026-11", **change}
    file.write_text(json.dumps({"prices": [row]}))
    with pytest.raises(InputError, match=message):
        price("H100", file)


@pytest.mark.parametrize("change", [{"years": 0}, {"capital_usd": -1}, {"kw_all_in": float("nan")}])
def test_owning_for_nothing_or_for_no_time_is_refused(change):
    with pytest.raises(InputError, match="owned H100"):
        replace(OwnedHardware("H100", 1.0, 1.0), **change)
