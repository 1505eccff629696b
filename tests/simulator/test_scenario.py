"""A scenario survives being written and read; whatever is wrong with one is said in one sentence."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline.errors import InputError
from simulator.deployment import resolve
from simulator.fleet.faults import Slowdown
from simulator.fleet.patience import Patience, Retries
from simulator.scenario import Scenario
from simulator.scenario_file import from_mapping, from_text, json_schema, load, to_mapping, to_yaml, with_changes
from tests.simulator.scenarios import SMALL, small

LENGTHS = st.one_of(
    st.integers(1, 9000),
    st.tuples(st.integers(1, 100), st.integers(100, 900)).map(lambda ends: f"uniform:{ends[0]}:{ends[1]}"),
    st.tuples(st.floats(2, 900), st.floats(0.1, 3)).map(lambda two: f"lognormal:{two[0]}:{two[1]}"),
    st.floats(2, 900).map(lambda mean: {"distribution": "lognormal", "mean": mean, "cv": 1, "longest": 5000}),
)
SCENARIOS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["llama-3.1-8b", "qwen3-32b"]),
        "hardware": st.fixed_dictionaries({"accelerator": st.text(min_size=1)}),
        "workload": st.fixed_dictionaries(
            {"request_rate": st.floats(1e-3, 1e4), "prompt_tokens": LENGTHS, "output_tokens": LENGTHS},
            optional={"burstiness": st.floats(0.01, 100) | st.just(float("inf"))},
        ),
    },
    optional={
        "name": st.text(),
        "weight_dtype": st.sampled_from(["bf16", "torch.float16", "FP8"]),
        "parallelism": st.fixed_dictionaries({"tensor": st.integers(1, 16)}),
        "engine": st.fixed_dictionaries({}, optional={"num_blocks": st.none() | st.integers(2, 10**6)}),
        "slo": st.fixed_dictionaries({}, optional={"ttft_ms": st.floats(1, 1e5), "percentile": st.floats(50, 99.9)}),
        "client": st.fixed_dictionaries(
            {},
            optional={"timeout_s": st.floats(0.1, 99), "retries": st.just({"attempts": 3})},
        ),
        "faults": st.lists(
            st.sampled_from(
                [
                    {"kind": "crash", "replica": 0, "at_s": 1},
                    {"kind": "crashes", "mean_between_s": 5, "restart_s": 1.5},
                    {"kind": "slowdown", "replica": 0, "at_s": 1, "duration_s": 2, "factor": 3},
                    {"kind": "rolling_upgrade", "at_s": 1, "drain_s": 2, "restart_s": 3},
                    {"kind": "spot_interruption", "replica": 0, "at_s": 1, "notice_s": 2},
                ]
            )
        ),
        "prices": st.just({"low": 1, "typical": 2.5, "high": 3}) | st.none(),
        "seed": st.integers(0, 2**40),
    },
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(SCENARIOS)
def test_written_and_read_it_is_the_same(values):
    scenario = from_mapping(values)
    assert from_text(to_yaml(scenario)) == scenario
    assert from_mapping(to_mapping(scenario)) == scenario
    json.dumps(to_mapping(scenario), allow_nan=values["workload"].get("burstiness") == float("inf"))


@given(st.sampled_from(sorted(Scenario.model_fields)), st.text(max_size=15), ANYTHING)
@settings(max_examples=300)
def test_a_wrong_value_anywhere_is_an_input_error(section, key, value):
    for document in ({**SMALL, section: value}, {**SMALL, section: {key: value}}, {**SMALL, key: value}):
        try:
            from_mapping(document)
        except InputError as error:
            assert str(error).endswith((".", ".)"))
            assert "\n" not in str(error)


@given(st.text(max_size=300))
@settings(max_examples=300)
def test_any_text_is_a_scenario_or_an_input_error(text):
    with pytest.raises(InputError):
        from_text(text)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"workload.request_rate": -3}, "workload.request_rate is -3; it must be greater than or equal to 0.000001."),
        ({"workload.request_rate": float("nan")}, "workload.request_rate is nan; it must be"),
        ({"workload.burstiness": float("nan")}, "workload.burstiness is nan; it must be"),
        ({"engine.max_seqs": 3}, "engine.max_seqs is no setting; write max_num_seqs."),
        ({"slos": {}}, "slos is no setting; write slo."),
        ({"fleet.zzz": 1}, "fleet.zzz is no setting; choose from replicas, max_replicas, router, autoscaler"),
        ({"slo": 5}, "slo is 5; it must be a section: slo, and indented below it ttft_ms"),
        ({"slo.percentile": 100}, "slo.percentile is 100; it must be less than or equal to 99.9."),
        ({"weight_dtype": "bf17"}, "weight_dtype: number format 'bf17' is not known"),
        ({"workload.prompt_tokens": "pareto:3"}, "workload.prompt_tokens: length 'pareto:3' is not understood"),
        ({"workload.prompt_tokens": 0}, "workload.prompt_tokens.tokens is 0"),
        ({"workload.trace": {"file": "x.csv"}}, "workload: a trace brings its own lengths"),
        ({"prices": {"low": 3, "typical": 2, "high": 1}}, "prices: prices must rise"),
        ({"run": {"min_requests": 10, "max_requests": 5}}, "max_requests is below min_requests"),
        ({"fleet.router": "fastest"}, "fleet.router is 'fastest'; it must be 'least_outstanding'"),
        ({"faults": {"kind": "crash"}}, "faults is {'kind': 'crash'}; it must be a list, a dash before each entry."),
        ({"faults": [{"at_s": 3}]}, "faults.0 is {'at_s': 3}; give it a kind: 'crash', 'crashes', 'slowdown'"),
        ({"faults": [{"kind": "fire"}]}, "faults.0 is {'kind': 'fire'}; give it a kind: 'crash', 'crashes'"),
        ({"faults": [{"kind": "crash", "replica": 0, "at": 1}]}, "faults.0.at is no setting; write at_s."),
        ({"faults": [{"kind": "crash", "replica": -1, "at_s": 1}]}, "faults.0.replica is -1; it must be greater"),
        ({"client.retries.attempts": 0}, "client.retries.attempts is 0; it must be greater than or equal to 1."),
        ({"client.retries.tries": 2}, "client.retries.tries is no setting; choose from attempts, backoff_s"),
        ({"client.timeout_s": 0}, "client.timeout_s is 0; it must be greater than 0."),
        ({"workload.users": {"count": 5}}, "workload: request_rate and users both set the load: remove one."),
        ({"workload.users": {"count": 0}}, "workload.users.count is 0; it must be greater than or equal to 1."),
        ({"workload.sessions": {"turns": "x"}}, "workload.sessions.turns: length 'x' is not understood"),
        (
            {"workload.sessions": {"turns": 2, "context": "x"}},
            "workload.sessions.context is 'x'; it must",
        ),
    ],
)
def test_faults_name_place_value_and_remedy(changes, told):
    with pytest.raises(InputError) as raised:
        with_changes(small(), changes, "it")
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("- 1", "is a list"),
        ("model: a\nmodel: b", "line 2: model is given twice"),
        ("a: [", "line 1"),
        ("a: &x {b: *x}", "not valid YAML"),
        ("? [a]\n: b", "no plain word"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("[" * 100_000, "not valid YAML"),
    ],
)
def test_hostile_yaml_is_refused(text, told):
    with pytest.raises(InputError, match=told):
        from_text(text)


def test_a_missing_file_and_a_binary_one(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="cannot be read as text"):
        load(tmp_path / "binary.yaml")
    with pytest.raises(InputError, match="cannot be read as text"):
        load(tmp_path)


def test_files_are_found_from_the_scenarios_folder(tmp_path):
    (tmp_path / "requests.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,1,1\n1,1,1\n")
    document = {**SMALL, "workload": {"trace": {"file": "requests.csv"}}}
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(document))
    assert load(tmp_path / "it.yaml").workload.trace.file == tmp_path / "requests.csv"


def test_every_setting_is_documented():
    schema = json_schema()
    sections = {"Scenario": schema, **schema["$defs"]}
    bare = [
        f"{name}.{field}"
        for name, section in sections.items()
        for field, about in section["properties"].items()
        if not about.get("description") and "$ref" not in about and field not in ("distribution", "kind")
    ]
    assert bare == []
    assert schema["additionalProperties"] is False


def test_changes_leave_the_original_alone():
    before = small()
    after = with_changes(before, {"slo.ttft_ms": 999, "engine.block_size": 32})
    assert (after.slo.ttft_ms, after.engine.block_size) == (999, 32)
    assert before == small()


def test_the_fleet_is_what_the_scenario_says():
    faults = [{"kind": "slowdown", "replica": 1, "at_s": 5, "duration_s": 3, "factor": 2}]
    client = {"timeout_s": 30, "retries": {"attempts": 3, "backoff_s": 0.5}, "to_engine_ms": 4}
    fleet = resolve(small(client=client, faults=faults, seed=5)).fleet(2)
    assert fleet.faults == (Slowdown(1, 5.0, 3.0, 2.0),)
    assert fleet.patience == Patience(timeout_s=30.0, retries=Retries(3, 0.5))
    assert (fleet.client.to_engine_s, fleet.seed) == (0.004, 5)
    assert resolve(small()).fleet(1).patience is None
    with pytest.raises(InputError, match="fleet: a fault names replica 1, and the fleet starts with 1"):
        resolve(small(faults=faults)).fleet(1)
