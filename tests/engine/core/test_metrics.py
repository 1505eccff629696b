"""Laws that tie the metrics to each other, then their undefined cases."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import metrics
from engine.core.bench_result import bench_result, requests_of_bench_result
from engine.core.metrics import Slo, parse_slo
from engine.core.records import RequestRecord, requests_table
from engine.core.trace import Trace
from roofline.errors import InputError, TraceError

gap = st.floats(0, 5, allow_subnormal=False)


@st.composite
def records(draw, reasons=("stop", "length", "abort")):
    arrival = draw(st.floats(0, 100))
    send = arrival + draw(gap)
    times = [float(t) for t in send + np.cumsum(draw(st.lists(gap, min_size=1, max_size=6)))]
    held_back = draw(st.booleans())
    return RequestRecord(
        "r",
        arrival if held_back else send,
        prompt_tokens=draw(st.integers(1, 100)),
        max_tokens=10,
        send_s=send if held_back else math.nan,
        finish_s=times[-1],
        finish_reason=draw(st.sampled_from(reasons)),
        token_times_s=times,
    )


tables = st.lists(records(), min_size=1, max_size=8).map(
    lambda rows: requests_table(sorted(rows, key=lambda row: row.arrival_s))
)


@given(tables)
def test_end_to_end_is_first_token_plus_all_gaps(requests):
    ttft, e2e, done = metrics.ttft_s(requests), metrics.e2e_s(requests), metrics.completed(requests)
    gaps = np.array([np.diff(times).sum() for times in requests["token_times_s"]])
    np.testing.assert_allclose(e2e[done], (ttft + gaps)[done], atol=1e-9)
    assert np.isnan(ttft[~done]).all() and np.isnan(e2e[~done]).all()


@given(tables)
def test_time_per_output_token_is_the_mean_gap(requests):
    tpot, done = metrics.tpot_s(requests), metrics.completed(requests)
    for value, times, good in zip(tpot, requests["token_times_s"], done, strict=True):
        if good and len(times) > 1:
            assert value == pytest.approx(np.diff(times).mean(), abs=1e-9)
        else:
            assert math.isnan(value)


@given(tables)
def test_gaps_are_pooled_over_completed_requests(requests):
    done = metrics.completed(requests)
    assert metrics.itl_s(requests).size == (requests["output_tokens"][done] - 1).sum()


@given(tables, st.floats(0.1, 5), st.floats(0.1, 5))
def test_a_laxer_slo_is_met_by_more(requests, tight, more):
    strict, lax = Slo(tight, tight, tight), Slo(tight + more, tight + more, tight + more)
    assert metrics.attainment(requests, strict) <= metrics.attainment(requests, lax)
    assert metrics.attainment(requests, Slo()) == metrics.completed(requests).mean()
    if metrics.makespan_s(requests) > 0:
        assert metrics.goodput(requests, lax) <= metrics.request_throughput(requests)


@given(tables, st.floats(0.5, 20))
def test_slower_time_scales_every_figure(requests, factor):
    """A change of the unit of time scales latencies and divides rates: nothing depends on an absolute second."""
    scaled = requests.copy()
    for name in ("arrival_s", "send_s", "first_token_s", "finish_s"):
        scaled[name] = requests[name] * factor
    scaled["token_times_s"] = [times * factor for times in requests["token_times_s"]]
    one, other = (metrics.summarize(Trace({}, requests=table)) for table in (requests, scaled))
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        if one[name] is None:
            assert other[name] is None
        else:
            assert other[name] == pytest.approx({k: v * factor for k, v in one[name].items()}, abs=1e-9)
    if one["makespan_s"] > 1e-6:
        assert other["output_throughput"] * factor == pytest.approx(one["output_throughput"])


def test_the_clock_starts_when_the_client_sends():
    record = RequestRecord("a", 1.0, 5, 3, send_s=3.0, finish_s=6.0, finish_reason="stop", token_times_s=[4.0, 6.0])
    requests = requests_table([record])
    assert metrics.ttft_s(requests).tolist() == [1.0]
    assert metrics.e2e_s(requests).tolist() == [3.0]
    assert metrics.makespan_s(requests) == 3.0


def test_one_token_has_no_time_per_output_token_but_keeps_its_slo():
    record = RequestRecord("a", 0.0, 5, 1, finish_s=1.0, finish_reason="length", token_times_s=[1.0])
    requests = requests_table([record])
    assert math.isnan(metrics.tpot_s(requests)[0])
    assert metrics.meets(requests, Slo(tpot_s=0.001)).tolist() == [True]


def test_what_was_not_measured_is_none():
    summary = metrics.summarize(Trace({}, requests=pd.DataFrame({"arrival_s": [0.0], "output_tokens": [3]})))
    assert summary == {
        **dict.fromkeys(("ttft_s", "tpot_s", "itl_s", "e2e_s", "request_throughput", "output_throughput")),
        **{"makespan_s": None, "num_requests": 1, "num_steps": None, "num_preemptions": None},
    }
    assert metrics.summarize(Trace({}))["num_requests"] == 0


def test_slo_grammar():
    assert parse_slo("ttft:500 tpot:50 e2el:10000") == Slo(0.5, 0.05, 10.0)
    assert parse_slo("tpot:50") == Slo(tpot_s=0.05)


@pytest.mark.parametrize("text", ["", "ttft", "ttft:", "ttft:x", "ttft:-5", "p99:5", "ttft:5 ttft:6", "ttft:nan"])
def test_a_wrong_slo_is_refused(text):
    with pytest.raises(InputError, match="SLO"):
        parse_slo(text)


FIELDS = (
    "date endpoint_type backend model_id tokenizer_id num_prompts request_rate burstiness max_concurrency "
    "duration completed failed total_input_tokens total_output_tokens request_throughput request_goodput "
    "output_throughput total_token_throughput max_output_tokens_per_s max_concurrent_requests input_lens "
    "output_lens ttfts itls start_times errors"
)


@given(tables)
def test_the_bench_result_has_every_field_and_is_strict_json(requests):
    result = bench_result(Trace({"started_at": "2026-01-02T03:04:05+00:00"}, requests=requests), parse_slo("ttft:500"))
    latencies = [
        f"{s}_{m}_ms"
        for s in ("mean", "median", "std", "p50", "p90", "p95", "p99")
        for m in ("ttft", "tpot", "itl", "e2el")
    ]
    assert sorted(result) == sorted(FIELDS.split() + latencies)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["date"] == "20260102-030405"
    assert result["completed"] + result["failed"] == len(requests)


@given(st.lists(records(("stop", "length")), min_size=1, max_size=8))
def test_a_bench_result_read_back_gives_the_same_figures(rows):
    requests = requests_table(sorted(rows, key=lambda row: row.arrival_s))
    result = json.loads(json.dumps(bench_result(Trace({}, requests=requests))))
    back = bench_result(Trace({}, requests=requests_of_bench_result(result, "result.json")))
    for name in result:
        if name.endswith("_ms") and result[name] is not None:
            assert back[name] == pytest.approx(result[name], abs=1e-6), name
    assert back["total_output_tokens"] == result["total_output_tokens"]
    assert back["duration"] == pytest.approx(result["duration"], abs=1e-9)


def test_peaks_are_counted_in_whole_seconds():
    times = [[0.5, 1.2, 1.4], [1.6, 1.9], [3.0]]
    rows = [
        RequestRecord(str(i), 0.1 + i, 5, 5, finish_s=t[-1], finish_reason="stop", token_times_s=t)
        for i, t in enumerate(times)
    ]
    result = bench_result(Trace({}, requests=requests_table(rows)))
    assert result["max_output_tokens_per_s"] == 4.0  # between 1.1 s and 2.1 s
    assert result["max_concurrent_requests"] == 2


def test_simulated_results_say_so_and_details_can_be_left_out():
    requests = requests_table([RequestRecord("a", 0, 1, 1, finish_s=1.0, finish_reason="stop", token_times_s=[1.0])])
    result = bench_result(
        Trace({"simulated": True, "workload": {"request_rate": "inf"}}, requests=requests), None, False
    )
    assert result["simulated"] is True and result["request_rate"] == "inf" and "itls" not in result
    with pytest.raises(TraceError, match="lacks input_lens; save the benchmark with its details"):
        requests_of_bench_result(result, "result.json")
