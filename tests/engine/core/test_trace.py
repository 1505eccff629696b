"""The trace format: what is written comes back, what is wrong is named, and nothing is half-written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core import trace as trace_module
from engine.core.batch import Batch
from engine.core.records import RequestRecord, StepKind, StepLog, StepTiming, requests_table
from engine.core.trace import (
    Trace,
    check_writable,
    read_trace,
    require_for_fit,
    require_for_replay,
    trace_hash,
    write_trace,
)
from engine.core.trace_schema import REQUEST_COLUMNS, STEP_COLUMNS
from roofline.errors import TraceError
from roofline.step_time import BatchWork

seconds = st.floats(0, 1e6, allow_nan=False)
counts = st.integers(0, 2**40)
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@st.composite
def request_records(draw):
    """One request at time 0 or later, whole or aborted on the way."""
    arrival = draw(seconds)
    gaps = draw(st.lists(st.floats(0, 10), max_size=5))
    times = [float(t) for t in arrival + np.cumsum(gaps)]
    return RequestRecord(
        request_id=draw(words),
        arrival_s=arrival,
        prompt_tokens=draw(st.integers(1, 2**31)),
        max_tokens=draw(st.integers(1, 100)),
        session_id=draw(st.none() | words),
        send_s=draw(st.just(float("nan")) | st.just(arrival)),
        cached_tokens=draw(counts),
        first_scheduled_s=arrival,
        finish_s=times[-1] if times else arrival,
        num_preemptions=draw(counts),
        finish_reason=draw(st.sampled_from(["stop", "length", "abort", None])),
        token_times_s=times,
    )


works = st.builds(BatchWork, *[st.integers(0, 10**9)] * 8)
timings = st.tuples(st.floats(0, 10), st.floats(1e-6, 10), st.none() | st.floats(0, 1))


@st.composite
def traces(draw):
    log = StepLog(kv_blocks_total=draw(counts))
    start = 0.0
    for work, (idle, wall, device) in draw(st.lists(st.tuples(works, timings), max_size=4)):
        start += idle
        kind = draw(st.sampled_from([StepKind(), StepKind("graph", 8)]))
        log.add(Batch(step=0, work=work), StepTiming(start, wall, float("nan") if device is None else device), kind)
    records = sorted(draw(st.lists(request_records(), max_size=4)), key=lambda record: record.arrival_s)
    return Trace({"model": {"name": draw(words)}, "seed": draw(counts)}, log.table(), requests_table(records))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace=traces(), table_format=st.sampled_from(["parquet", "csv"]))
def test_what_is_written_comes_back(tmp_path, trace, table_format):
    write_trace(tmp_path / "t", trace, table_format)
    back = read_trace(tmp_path / "t")
    pd.testing.assert_frame_equal(back.steps, trace.steps)
    pd.testing.assert_frame_equal(
        back.requests.drop(columns="token_times_s"), trace.requests.drop(columns="token_times_s")
    )
    for read, written in zip(back.requests["token_times_s"], trace.requests["token_times_s"], strict=True):
        np.testing.assert_array_equal(read, written)
    assert back.meta == {"schema_version": 1, **trace.meta}
    assert trace_hash(back) == trace_hash(trace)


def test_tables_have_the_columns_of_the_contract():
    assert list(StepLog(1).table()) == list(STEP_COLUMNS)
    assert list(requests_table([])) == list(REQUEST_COLUMNS)


def small_trace() -> Trace:
    log = StepLog(kv_blocks_total=10)
    log.add(Batch(step=0, work=BatchWork(num_prefill_seqs=1, prefill_tokens=4)), StepTiming(0.5, 0.25))
    log.add(Batch(step=1, work=BatchWork(num_decode_seqs=1, decode_tokens=1)), StepTiming(0.75, 0.25))
    record = RequestRecord("a", 0.5, 4, 2, finish_s=1.0, finish_reason="length", token_times_s=[0.75, 1.0])
    return Trace({"model": {"name": "m"}}, log.table(), requests_table([record]))


@given(st.sampled_from(["wall_s", "prefill_tokens", "num_running"]))
def test_the_hash_sees_every_change(column):
    trace = small_trace()
    changed = replace(trace, steps=trace.steps.assign(**{column: trace.steps[column] + 1}))
    assert trace_hash(changed) != trace_hash(trace)
    assert trace_hash(replace(trace, meta={"model": {"name": "n"}})) != trace_hash(trace)


def test_priorities_and_block_keys_travel_with_the_requests(tmp_path):
    trace = small_trace()
    keys = pd.Series([np.array([7, 8])], dtype=object)
    write_trace(tmp_path / "t", replace(trace, requests=trace.requests.assign(priority=-1, block_keys=keys)), "csv")
    back = read_trace(tmp_path / "t").requests
    assert back["priority"].tolist() == [-1]
    assert back["block_keys"].iloc[0].tolist() == [7, 8]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_lone_requests_file_is_a_trace(tmp_path, suffix):
    write_trace(tmp_path / "t", small_trace(), suffix)
    trace = read_trace(tmp_path / "t" / f"requests.{suffix}")
    assert trace.meta == {} and not len(trace.steps.columns)
    assert require_for_replay(trace)["prompt_tokens"].tolist() == [4]


def test_foreign_columns_are_kept_and_empty_ones_are_absent(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens,max_tokens,tenant\n0,5,2,,x\n1.5,6,3,,y\n")
    requests = require_for_replay(read_trace(path))
    assert requests["tenant"].tolist() == ["x", "y"]
    assert "max_tokens" not in requests


BROKEN_REQUESTS = {
    "arrival_s,prompt_tokens,output_tokens\n0,-5,2\n": "prompt_tokens is -5 in row 1; it must not be negative",
    "arrival_s,prompt_tokens,output_tokens\n0,5,2\n1,5.5,2\n": "prompt_tokens is 5.5 in row 2",
    "arrival_s,prompt_tokens,output_tokens\n0,5,2\n1,,2\n": "prompt_tokens is empty in row 2",
    "arrival_s,prompt_tokens,output_tokens\n0,5,2\nx,5,2\n": "arrival_s is x in row 2; it must be a finite number",
    "arrival_s,prompt_tokens,output_tokens\n,5,2\n1,5,2\n": "arrival_s is empty in row 1",
    "arrival_s,prompt_tokens,output_tokens\n3,5,2\n2,5,2\n": "arrival_s is 2.* in row 2.*sort the rows by arrival_s",
    "arrival_s,prompt_tokens,output_tokens,first_token_s\n3,5,2,2\n": "first_token_s is 2.* in row 1; that is before",
    'arrival_s,output_tokens,token_times_s\n0,2,"[1, 2, 3]"\n': "one time for each of output_tokens",
    'arrival_s,output_tokens,token_times_s\n0,2,"[2, 1]"\n': "its times must not go backwards",
    "arrival_s,output_tokens,token_times_s\n0,2,1;2\n": "it must be a JSON list",
}


@pytest.mark.parametrize(("text", "message"), BROKEN_REQUESTS.items())
def test_a_wrong_row_is_named(tmp_path, text, message):
    path = tmp_path / "requests.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=message) as error:
        read_trace(path)
    assert str(path) in str(error.value)


def test_steps_must_take_time_and_be_in_order(tmp_path):
    trace = small_trace()
    for column, values, message in (("wall_s", [0.25, 0.0], "positive"), ("start_s", [0.75, 0.5], "sort by start_s")):
        with pytest.raises(TraceError, match=f"{column} is .* in row 2; .*{message}"):
            write_trace(tmp_path / "t", replace(trace, steps=trace.steps.assign(**{column: values})))
    assert not (tmp_path / "t").exists()


def test_what_a_fit_and_a_replay_need_is_said():
    trace = small_trace()
    with pytest.raises(TraceError, match="lack the column prefill_kv_tokens, which a fit needs"):
        require_for_fit(replace(trace, steps=trace.steps.drop(columns="prefill_kv_tokens")))
    with pytest.raises(TraceError, match="neither wall_s nor device_s"):
        require_for_fit(replace(trace, steps=trace.steps.drop(columns="wall_s")))
    with pytest.raises(TraceError, match="lack the column output_tokens, which a replay needs"):
        require_for_replay(replace(trace, requests=trace.requests.drop(columns="output_tokens")))
    with pytest.raises(TraceError, match="holds no steps"):
        require_for_fit(replace(trace, steps=pd.DataFrame()))
    assert len(require_for_fit(trace)) == 2


def test_only_an_older_trace_is_replaced(tmp_path):
    folder = tmp_path / "t"
    write_trace(folder, small_trace(), "csv", {"bench.json": "{}"})
    write_trace(folder, small_trace(), "parquet")
    assert sorted(entry.name for entry in folder.iterdir()) == ["meta.json", "requests.parquet", "steps.parquet"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(TraceError, match=r"holds notes\.txt, which is no part of a trace"):
        write_trace(folder, small_trace())
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="file cannot be written to"):
        check_writable(tmp_path / "file" / "t")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(TraceError, match=r"new/t cannot be made, as .* cannot be written to"):
        check_writable(tmp_path / "new" / "t")


def test_a_failure_on_the_way_leaves_the_older_trace(tmp_path, monkeypatch):
    folder = tmp_path / "t"
    write_trace(folder, small_trace())
    before = trace_hash(read_trace(folder))

    def fails(*_):
        raise OSError("disk full")

    monkeypatch.setattr(trace_module, "_write_table", fails)
    with pytest.raises(OSError, match="disk full"):
        write_trace(folder, small_trace())
    assert trace_hash(read_trace(folder)) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["t"]


def test_meta_is_strict_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_trace(tmp_path / "t", replace(small_trace(), meta={"rate": float("nan")}))
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no meta.json"),
        ({"meta.json": "{"}, "not valid JSON"),
        ({"meta.json": "[]"}, "must be a JSON object"),
        ({"meta.json": "{}"}, "neither steps nor requests"),
        ({"meta.json": '{"schema_version": 99}'}, "schema_version 99"),
        ({"meta.json": "{}", "steps.csv": "wall_s\n1\n", "steps.parquet": ""}, "holds both"),
        ({"meta.json": "{}", "steps.csv": ""}, "neither a parquet file nor a CSV table"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, files: dict[str, str], message):
    for name, text in files.items():
        Path(tmp_path / name).write_text(text)
    with pytest.raises(TraceError, match=message):
        read_trace(tmp_path)
