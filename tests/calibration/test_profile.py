"""A profile on disk: it comes back the same, is refused when it is not sound, and speaks only for what it measured."""

import json
from datetime import UTC, datetime

import pytest

from calibration.fit import fit
from calibration.measurements import from_table
from calibration.profile import SCHEMA_VERSION, as_json, check_compatible, from_json, load, save, shipped, unstated
from roofline.errors import ProfileError
from tests.calibration.synthetic import measured, steps_table

META = {
    "hardware": {"name": "H100", "count": 1},
    "model": {"name": "llama-3.1-8b"},
    "tensor_parallel": 1,
    "weight_dtype": "bf16",
    "engine_config": {"block_size": 16},
}


@pytest.fixture(scope="module")
def profile():
    steps = measured(200)
    return fit(type(steps)(steps.columns, steps.seconds, steps.runs, meta=META), datetime(2026, 5, 1, tzinfo=UTC))


def changed(profile, path, value):
    """The profile's document with one field set, or removed where value is None."""
    document = json.loads(json.dumps(as_json(profile)))
    *parents, last = path
    place = document
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return document


def test_round_trip(profile, tmp_path):
    save(profile, tmp_path / "new" / "profile.json")
    assert load(tmp_path / "new" / "profile.json") == profile
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["profile.json"]


def test_the_document_is_strict_json(profile):
    assert json.loads(json.dumps(as_json(profile), allow_nan=False)) == as_json(profile)


def test_a_save_that_fails_keeps_the_old_profile(profile, tmp_path, monkeypatch):
    save(profile, tmp_path / "profile.json")
    before = (tmp_path / "profile.json").read_bytes()
    monkeypatch.setattr("calibration.profile.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(profile, tmp_path / "profile.json")
    assert (tmp_path / "profile.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), SCHEMA_VERSION + 1, f"schema_version {SCHEMA_VERSION + 1}"),
        (("schema_version",), None, "no schema_version"),
        (("form",), None, "lacks the field 'form'"),
        (("form", "costs", "s_per_token"), None, "lacks the field 's_per_token'"),
        (("form", "costs", "s_per_token"), -1.0, "s_per_token is -1.0"),
        (("form", "costs", "s_per_token"), "fast", "could not convert"),
        (("form", "costs", "fixed_s"), 0.0, "fixed_s is 0"),
        (("form", "costs", "s_per_prayer"), 1.0, "'s_per_prayer' is unknown"),
        (("form", "join"), "hope", "join 'hope'"),
        (("residuals", "regions", "all", "quantiles"), [0.0], "another number of quantiles"),
        (("errors",), [{"n": 1}], "not a sound profile"),
        (("provenance",), 3, "not a sound profile"),
    ],
)
def test_unsound_profiles_are_refused(profile, path, value, message):
    with pytest.raises(ProfileError, match=message) as caught:
        from_json(changed(profile, path, value), "profile.json")
    assert "profile.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"text"'])
def test_malformed_files_are_refused(tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ProfileError, match=r"p\.json"):
        load(tmp_path / "p.json")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ProfileError, match="calibration fit"):
        load(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("hardware", {"name": "L40S"}, "hardware is L40S in the trace, H100 in the profile"),
        ("model", {"name": "qwen3-32b"}, "model is qwen3-32b"),
        ("model", "qwen3-32b", "model is qwen3-32b"),
        ("tensor_parallel", 2, "tensor_parallel is 2 in the trace, 1 in the profile"),
        ("weight_dtype", "fp8", "weight_dtype is fp8"),
    ],
)
def test_other_things_are_refused_unless_a_transfer_is_asked_for(profile, key, value, told):
    with pytest.raises(ProfileError, match=told) as caught:
        check_compatible(profile, {**META, key: value})
    assert "--transfer" in str(caught.value)
    assert check_compatible(profile, {**META, key: value}, transfer=True) == "transferred"


def test_the_same_thing_is_calibrated_even_where_a_transfer_is_allowed(profile):
    assert check_compatible(profile, META, transfer=True) == "calibrated"
    assert unstated(profile, META) == []


def test_what_is_not_stated_is_told(profile):
    assert check_compatible(profile, {}) == "calibrated"
    assert unstated(profile, {"model": "llama-3.1-8b"}) == ["hardware", "tensor_parallel", "weight_dtype"]


def test_shipped_profiles_load():
    for name, profile in shipped().items():
        assert profile.provenance.licence, name
        assert profile.provenance.attribution, name
        assert profile.errors, name


def test_provenance_is_the_traces(profile):
    assert profile.provenance.engine_config == {"block_size": 16}
    assert profile.provenance.identity["hardware"] == "H100"
    assert fit(from_table(steps_table(50)), datetime(2026, 5, 1, tzinfo=UTC)).provenance.hardware is None
