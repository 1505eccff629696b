"""Measured tables in: what is derived is said, what is unusable is counted, what is wrong is named."""

import json

import numpy as np
import pandas as pd
import pytest

from calibration.measurements import REQUIRED, ColumnMap, from_table, join, read
from roofline.errors import TraceError
from roofline.step_time import chunk_attn_pairs
from tests.calibration.synthetic import steps_table


def write_trace(folder, table, **meta):
    folder.mkdir()
    (folder / "meta.json").write_text(json.dumps({"schema_version": 1, **meta}))
    table.to_parquet(folder / "steps.parquet")
    return folder


def test_a_trace_folder_comes_back_as_it_was_measured(tmp_path):
    table = steps_table(50)
    found = read(write_trace(tmp_path / "trace", table, model={"name": "m"}, tensor_parallel=2))
    np.testing.assert_array_equal(found.seconds, table.wall_s)
    assert [found.work(i).prefill_attn_pairs for i in range(50)] == table.prefill_attn_pairs.tolist()
    assert found.meta["tensor_parallel"] == 2
    assert not found.notes
    assert found.sources[0].startswith("trace sha256:")


def test_csv_and_parquet_are_the_same_measurements(tmp_path):
    table = steps_table(20)
    table.to_csv(tmp_path / "steps.csv", index=False)
    table.to_parquet(tmp_path / "steps.parquet")
    one, two = read(tmp_path / "steps.csv"), read(tmp_path / "steps.parquet")
    np.testing.assert_array_equal(one.seconds, two.seconds)
    np.testing.assert_array_equal(one.amounts, two.amounts)


def test_unusable_rows_are_counted_by_reason_and_the_others_kept():
    table = steps_table(100)
    table.loc[0, "wall_s"] = np.nan
    table.loc[1, "wall_s"] = 0.0
    table.loc[2, "wall_s"] = -1.0
    table.loc[3, "wall_s"] = np.inf
    table.loc[4, ["prefill_tokens", "num_prefill_seqs", "decode_tokens", "num_decode_seqs"]] = 0
    table.loc[5, "decode_kv_tokens"] = -5
    table.loc[6, ["prefill_tokens", "num_prefill_seqs"]] = [0, 3]
    found = from_table(table)
    assert len(found) + sum(found.unusable.values()) == 100
    assert sorted(found.unusable.values()) == [1, 1, 1, 4]
    np.testing.assert_array_equal(found.seconds, table.wall_s[7:])


def test_the_minimum_of_columns_is_enough_and_the_rest_is_said():
    table = steps_table(50)[[*REQUIRED, "wall_s"]]
    found = from_table(table)
    assert found.derived == {"decode_tokens", "prefill_attn_pairs", "decode_kv_max"}
    assert len(found.notes) == 3
    single = found.columns["num_prefill_seqs"] == 1
    for index in np.flatnonzero(single):
        work = found.work(index)
        assert work.prefill_attn_pairs == chunk_attn_pairs(work.prefill_tokens, work.prefill_kv_tokens)


def test_device_time_is_fitted_where_asked():
    table = steps_table(20).assign(device_s=lambda t: t.wall_s * 0.9)
    np.testing.assert_allclose(from_table(table, clock="device_s").seconds, table.wall_s * 0.9)


def test_device_time_stands_in_for_a_missing_wall_time_and_is_said():
    found = from_table(steps_table(20).rename(columns={"wall_s": "device_s"}))
    assert found.clock == "device_s"
    assert "device's time" in found.notes[0]
    with pytest.raises(TraceError, match="choose one with --clock"):
        join([from_table(steps_table(20)), found])


def test_a_foreign_table_by_its_column_map():
    table = steps_table(20)
    foreign = table.rename(columns={"prefill_tokens": "new"}).assign(latency_us=table.wall_s * 1e6)
    found = from_table(foreign, column_map=ColumnMap({"prefill_tokens": "new", "wall_s": "latency_us"}, scale=1e-6))
    np.testing.assert_allclose(found.seconds, table.wall_s)
    np.testing.assert_array_equal(found.columns["prefill_tokens"], table.prefill_tokens)


def test_forward_pass_metrics_are_recognised(tmp_path):
    rows = {
        "sum_prefill_tokens": [128, 0], "num_prefill_requests": [1, 0], "sum_prefill_kv_tokens": [0, 0],
        "num_decode_requests": [0, 4], "sum_decode_kv_tokens": [0, 400], "latency_ms": [17.1, 14.2],
    }  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "iterations.csv", index=False)
    np.testing.assert_allclose(read(tmp_path / "iterations.csv").seconds, [0.0171, 0.0142])


@pytest.mark.parametrize("column", [*REQUIRED, "wall_s"])
def test_a_missing_column_is_named(column):
    with pytest.raises(TraceError, match=f"no column '{column}'"):
        from_table(steps_table(20).drop(columns=column))


def test_an_empty_table_is_refused():
    with pytest.raises(TraceError, match=r"no usable step .it has no rows"):
        from_table(steps_table(20).iloc[:0])


def test_a_table_of_bad_times_says_why():
    with pytest.raises(TraceError, match="20 with a time that is missing"):
        from_table(steps_table(20).assign(wall_s=np.nan))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, "does not exist"),
        ("steps.parquet", "no parquet", "parquet"),
        ("steps.csv", "", "CSV"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(TraceError, match=message) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


def test_a_folder_without_steps_is_refused(tmp_path):
    (tmp_path / "meta.json").write_text('{"schema_version": 1}')
    with pytest.raises(TraceError, match="steps"):
        read(tmp_path)


def test_broken_meta_is_named(tmp_path):
    write_trace(tmp_path / "trace", steps_table(20))
    (tmp_path / "trace" / "meta.json").write_text("{")
    with pytest.raises(TraceError, match=r"meta\.json"):
        read(tmp_path / "trace")


def test_traces_of_different_things_are_not_joined(tmp_path):
    one = read(write_trace(tmp_path / "one", steps_table(20), hardware={"name": "H100"}))
    two = read(write_trace(tmp_path / "two", steps_table(20), hardware={"name": "L40S"}))
    with pytest.raises(TraceError, match=r"differ in hardware .H100 and L40S"):
        join([one, two])


def test_joining_counts_everything():
    bad = steps_table(30, seed=1)
    bad.loc[0, "wall_s"] = np.nan
    both = join([from_table(steps_table(20)), from_table(bad)])
    assert len(both) == 49
    assert sum(both.unusable.values()) == 1
    assert np.bincount(both.runs).tolist() == [20, 29]
