"""What other tools read back is what the trace holds: the same figures, in their units and under their names."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest

from engine.core import metrics
from engine.core.metrics import Slo
from engine.core.trace import Trace
from roofline.errors import InputError, TraceError
from simulator.output.formats import aiperf, inferencex, openmetrics, perfetto
from simulator.output.formats.files import FORMATS, export
from tests.simulator.output.runs import LINK, crowded


@pytest.fixture(scope="module")
def trace():
    return crowded(120)


def with_failures(trace):
    """Some requests that never got their answer."""
    requests = trace.requests.copy()
    reasons = {0: "rejected", 5: "timeout", 7: "abort", 9: "failed"}
    for row, reason in reasons.items():
        requests.loc[row, "finish_reason"] = reason
    requests.loc[0, ["first_scheduled_s", "first_token_s", "finish_s"]] = np.nan
    return Trace(trace.meta, trace.steps, requests)


def test_aiperf_records_hold_every_request_to_the_nanosecond(trace):
    records = [json.loads(line) for line in aiperf.records(trace).splitlines()]
    assert len(records) == len(trace.requests)
    starts = np.array([r["metadata"]["request_start_ns"] for r in records]) / 1e9
    np.testing.assert_allclose(starts, metrics.sent_s(trace.requests), atol=1e-9)
    ends = np.array([r["metadata"]["request_end_ns"] for r in records]) / 1e9
    np.testing.assert_allclose(ends, trace.requests["finish_s"], atol=1e-9)
    read = [r["metrics"]["time_to_first_token"] for r in records]
    assert {value["unit"] for value in read} == {"ms"}
    np.testing.assert_allclose([v["value"] for v in read], metrics.ttft_s(trace.requests) * 1e3)
    gaps = np.concatenate([r["metrics"]["inter_chunk_latency"]["value"] for r in records])
    np.testing.assert_allclose(gaps, metrics.itl_s(trace.requests) * 1e3)


def test_aiperf_statistics_are_those_of_the_records(trace):
    summary = aiperf.summary(trace, Slo(ttft_s=0.5))
    records = [json.loads(line)["metrics"] for line in aiperf.records(trace).splitlines()]
    for tag in ("time_to_first_token", "inter_token_latency", "request_latency", "output_token_throughput_per_user"):
        values = [r[tag]["value"] for r in records if tag in r]
        assert summary[tag]["count"] == len(values)
        assert summary[tag]["avg"] == pytest.approx(np.mean(values))
        assert summary[tag]["p99"] == pytest.approx(np.percentile(values, 99))
        assert summary[tag]["std"] == pytest.approx(np.std(values, ddof=1))
    assert summary["goodput"]["avg"] == pytest.approx(metrics.goodput(trace.requests, Slo(ttft_s=0.5)))
    assert aiperf.summary(trace)["goodput"] is None
    assert summary["simulated"] is True


def test_aiperf_says_how_requests_failed(trace):
    failing = with_failures(trace)
    records = [json.loads(line) for line in aiperf.records(failing).splitlines()]
    assert [records[row]["error"]["code"] for row in (0, 5, 7, 9)] == [429, 504, 499, 500]
    assert [records[row]["metadata"]["was_cancelled"] for row in (0, 5, 7, 9)] == [False, True, True, False]
    assert records[0]["metadata"]["request_end_ns"] is None and "request_latency" not in records[0]["metrics"]
    summary = aiperf.summary(failing)
    assert summary["request_count"]["avg"] == len(failing.requests) - 4
    assert sum(error["count"] for error in summary["error_summary"]) == 4


def test_aiperf_counts_the_turns_of_a_session(trace):
    requests = trace.requests.head(5).assign(session_id=["a", None, "a", "b", "a"])
    records = [json.loads(line)["metadata"] for line in aiperf.records(Trace({}, requests=requests)).splitlines()]
    assert [r["session_num"] for r in records] == [0, 1, 0, 2, 0]
    assert [r["turn_index"] for r in records] == [0, 0, 1, 0, 2]


def test_the_inferencex_row_is_in_seconds_and_a_gpu(trace):
    row = inferencex.row(trace)
    assert row["hw"] == "H100" and row["tp"] == 1 and row["precision"] == "bf16" and row["simulated"]
    assert row["p99_ttft"] == pytest.approx(np.percentile(metrics.ttft_s(trace.requests), 99))
    assert row["median_intvty"] == pytest.approx(1 / row["median_tpot"])
    assert row["output_tput_per_gpu"] == pytest.approx(metrics.output_throughput(trace.requests) / 2)  # two GPUs
    tokens = trace.requests[["prompt_tokens", "output_tokens"]].sum()
    assert row["tput_per_gpu"] / row["output_tput_per_gpu"] == pytest.approx(tokens.sum() / tokens.iloc[1])


def test_the_timeline_holds_every_step_and_nests_every_request(trace):
    packed = perfetto.timeline(trace)
    assert packed == perfetto.timeline(trace)
    found = json.loads(gzip.decompress(packed))["traceEvents"]
    steps = [event for event in found if event["ph"] == "X"]
    assert len(steps) == len(trace.steps)
    assert sum(event["dur"] for event in steps) == pytest.approx(trace.steps["wall_s"].sum() * 1e6)
    assert {event["pid"] for event in steps} == {0, 1}
    assert sum(event["args"]["num_preempted"] for event in steps) == trace.steps["num_preempted"].sum() > 0
    open_spans = {}
    for event in (e for e in found if e["ph"] in "be"):
        spans = open_spans.setdefault(event["id"], {})
        if event["ph"] == "b":
            spans[event["name"]] = event["ts"]
        else:
            assert event["ts"] >= spans.pop(event["name"])
    assert len(open_spans) == len(trace.requests) and not any(open_spans.values())
    usage = [e["args"]["kv usage"] for e in found if e["ph"] == "C" and e["name"] == "kv usage"]
    assert len(usage) == len(steps) and 0 < max(usage) <= 1


def test_a_request_that_never_ended_has_no_span(trace):
    found = list(perfetto.events(with_failures(trace)))
    assert not [event for event in found if event["ph"] == "b" and event["id"] == 0]


def samples(text, name):
    """{labels: value} of one sample name; labels as a frozenset of pairs."""
    found = re.findall(rf"^vllm:{name}{{(.*)}} (\S+)$", text, flags=re.MULTILINE)
    return {frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)): float(value) for labels, value in found}


def test_openmetrics_counts_what_the_trace_counts(trace):
    text = openmetrics.text(trace)
    assert text.endswith("# EOF\n")
    totals = {
        "generation_tokens_total": trace.requests["output_tokens"].sum(),
        "num_preemptions_total": trace.requests["num_preemptions"].sum(),
        "time_to_first_token_seconds_count": len(trace.requests),
        "time_to_first_token_seconds_sum": metrics.ttft_s(trace.requests).sum(),
        "request_success_total": len(trace.requests),
    }
    for name, value in totals.items():
        assert sum(samples(text, name).values()) == pytest.approx(value, rel=1e-8), name


def test_openmetrics_buckets_count_up(trace):
    text = openmetrics.text(trace)
    for replica in ("0", "1"):
        own = trace.requests[trace.requests["replica"] == int(replica)]
        buckets = {
            float(dict(labels)["le"].replace("+Inf", "inf")): value
            for labels, value in samples(text, "time_to_first_token_seconds_bucket").items()
            if dict(labels)["engine"] == replica
        }
        ttft = metrics.ttft_s(own)
        assert [buckets[bound] for bound in sorted(buckets)] == [(ttft <= bound).sum() for bound in sorted(buckets)]


def test_openmetrics_families_stand_together_and_names_are_escaped(trace):
    odd = Trace({**trace.meta, "model": {"name": 'a"b\\c\nd'}}, trace.steps, trace.requests)
    text = openmetrics.text(odd)
    assert r'model_name="a\"b\\c\nd"' in text
    families = re.findall(r"^# TYPE (\S+)", text, flags=re.MULTILINE)
    assert len(families) == len(set(families)) >= 15
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus_client is not installed")
    assert {family.name for family in parser.text_string_to_metric_families(text)} == set(families)


def test_csv_says_where_the_time_of_each_request_went(trace, tmp_path):
    table = pd.read_csv(export(trace, "requests-csv", tmp_path / "requests.csv"))
    ttft = table[[f"{n}_part_s" for n in ("network", "held", "retries", "queue", "preemption", "prefill")]].sum(axis=1)
    np.testing.assert_allclose(ttft, metrics.ttft_s(trace.requests), atol=1e-9)
    assert table["network_part_s"].iloc[0] == pytest.approx(LINK.to_engine_s + LINK.to_client_s)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_its_file(trace, tmp_path, name):
    path = export(trace, name, tmp_path / "deep" / FORMATS[name].file, Slo(ttft_s=1.0))
    assert path.stat().st_size > 100
    assert [entry.name for entry in path.parent.iterdir()] == [FORMATS[name].file]
    export(with_failures(trace), name, path)


def test_what_cannot_be_written_is_said(trace, tmp_path):
    with pytest.raises(InputError, match="'csv'; choose one of bench, aiperf"):
        export(trace, "csv", tmp_path / "x")
    with pytest.raises(TraceError, match="has no steps, which perfetto"):
        export(Trace({}, requests=trace.requests), "perfetto", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
