"""Generators keep the rate and the mean they are asked for; readers lose no row."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.arrivals import ArrivalProcess
from engine.core.config import EngineConfig
from engine.core.lengths import Fixed, LogNormal, Uniform, parse_lengths
from engine.core.trace import Trace
from engine.core.workload import SyntheticWorkload, Workload, check_fits, convert_keys, requests_of, resample
from engine.core.workload_files import read_workload, workload_of
from roofline.errors import CapacityError, InputError, TraceError

DATA = Path(__file__).parents[3] / "../shared/data/workloads"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the public request traces are not beside the project")
Z = 4.0  # standard errors: a right generator fails once in 16,000 seeds, and the seeds are fixed


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0, math.inf])
def test_five_requests_a_second_are_five(burstiness):
    count = 200_000
    times = ArrivalProcess(5.0, burstiness).first(np.random.default_rng(1), count)
    standard_error = 0.0 if math.isinf(burstiness) else 0.2 * burstiness**-0.5 / math.sqrt(count)
    assert times[-1] / count == pytest.approx(0.2, abs=Z * standard_error + 1e-9)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_spread_of_their_burstiness(burstiness):
    gaps = ArrivalProcess(5.0, burstiness).gaps_s(np.random.default_rng(2), 200_000)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.02)


def test_poisson_counts_have_variance_equal_to_mean():
    times = ArrivalProcess(20.0).until(np.random.default_rng(3), 5_000.0)
    per_second = np.bincount(times.astype(int), minlength=5_000)
    # The variance of a Poisson variance estimate is about (2 + 1/mean) * mean**2 / n.
    assert per_second.var() == pytest.approx(20.0, abs=Z * math.sqrt(2.05 / 5_000) * 20)
    assert per_second.mean() == pytest.approx(20.0, abs=Z * math.sqrt(20 / 5_000))


def test_all_at_once_and_constant_are_the_limits_of_the_family():
    rng = np.random.default_rng(0)
    assert not ArrivalProcess(math.inf).first(rng, 5).any()
    np.testing.assert_allclose(ArrivalProcess(4.0, math.inf).first(rng, 4), [0.25, 0.5, 0.75, 1.0])


@given(st.integers(0, 2**32), st.floats(1, 900), st.floats(0, 900))
def test_a_longer_run_begins_as_a_shorter_one(seed, duration, more):
    process = ArrivalProcess(10.0)
    short = process.until(np.random.default_rng(seed), duration)
    long = process.until(np.random.default_rng(seed), duration + more)
    assert np.all(np.diff(long) >= 0) and np.all(long < duration + more)
    np.testing.assert_array_equal(long[: short.size], short)


LENGTHS = [
    Fixed(7),
    Uniform(3, 12),
    LogNormal(200.0, 1.0),
    LogNormal(5.0, 1.5),
    LogNormal(1.5, 0.5),
    LogNormal(200.0, 1.0, longest=600),
    LogNormal(300.0, 2.0, longest=600),
]


@pytest.mark.parametrize("lengths", LENGTHS, ids=repr)
def test_lengths_keep_their_mean_and_bounds(lengths):
    drawn = lengths.draw(np.random.default_rng(4), 400_000)
    mean = {Fixed: lambda d: d.tokens, Uniform: lambda d: (d.low + d.high) / 2, LogNormal: lambda d: d.mean}
    assert drawn.dtype == np.int64 and drawn.min() >= 1
    expected = mean[type(lengths)](lengths)
    assert drawn.mean() == pytest.approx(expected, abs=Z * drawn.std() / math.sqrt(drawn.size) + 1e-12)
    if isinstance(lengths, LogNormal):
        if lengths.longest is None:
            variance = (lengths.cv * lengths.mean) ** 2  # rounding to whole tokens adds at most a quarter
            assert 0.9 * variance < drawn.var() < 1.1 * variance + 0.25
        else:
            assert drawn.max() <= lengths.longest
    if isinstance(lengths, Uniform):
        assert (drawn.min(), drawn.max()) == (3, 12)


def test_lengths_are_read_as_written():
    assert parse_lengths("128") == Fixed(128)
    assert parse_lengths("uniform:64:256") == Uniform(64, 256)
    assert parse_lengths("lognormal:200:1.5") == LogNormal(200.0, 1.5)
    assert parse_lengths("lognormal:200:1.5:1000") == LogNormal(200.0, 1.5, 1000)


@pytest.mark.parametrize("text", ["0", "-3", "", "1.5", "uniform:5", "uniform:9:3", "lognormal:0:1", "zipf:1:2", "a"])
def test_a_wrong_length_is_one_clear_sentence(text):
    with pytest.raises(InputError):
        parse_lengths(text)


SYNTHETIC = SyntheticWorkload(ArrivalProcess(5.0), LogNormal(100.0, 0.5), Uniform(5, 50), num_requests=200)


def test_same_seed_same_bytes_and_another_seed_another_workload():
    one, two, other = SYNTHETIC.generate(1), SYNTHETIC.generate(1), SYNTHETIC.generate(2)
    pd.testing.assert_frame_equal(one.requests, two.requests)
    assert not one.requests.equals(other.requests)


def test_each_purpose_has_its_own_stream():
    changed = SyntheticWorkload(SYNTHETIC.arrivals, Fixed(9), SYNTHETIC.output, num_requests=200)
    one, two = SYNTHETIC.generate(1).requests, changed.generate(1).requests
    assert one["arrival_s"].equals(two["arrival_s"])
    assert one["output_tokens"].equals(two["output_tokens"])
    assert np.corrcoef(one["prompt_tokens"], one["output_tokens"])[0, 1] < 0.3


def test_resampling_draws_rows_jointly():
    table = pd.DataFrame({"prompt_tokens": [10, 20, 30], "output_tokens": [1, 2, 3]})
    drawn = resample(table, np.arange(50.0), np.random.default_rng(0))
    assert (drawn["prompt_tokens"] == 10 * drawn["output_tokens"]).all()
    assert set(drawn["output_tokens"]) == {1, 2, 3}


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_a_rate_must_be_positive(rate):
    with pytest.raises(InputError, match="request rate is"):
        ArrivalProcess(rate)


def test_a_workload_without_an_end_is_refused():
    with pytest.raises(InputError, match="no end"):
        SyntheticWorkload(ArrivalProcess(1.0), Fixed(1), Fixed(1))
    with pytest.raises(InputError, match="needs a finite request rate"):
        SyntheticWorkload(ArrivalProcess(math.inf), Fixed(1), Fixed(1), duration_s=3.0).generate(0)


@needs_data
@pytest.mark.parametrize(
    ("name", "rows", "key_block_size"),
    [
        ("azure2023_conv.csv", 19_366, 0),
        ("azure2023_code.csv", 8_819, 0),
        ("mooncake_fast25_conversation.jsonl", 12_031, 512),
        ("mooncake_fast25_synthetic.jsonl", 3_993, 512),
        ("sharegpt300_qwen3_10rps_hash16.jsonl", 300, 16),
    ],
)
def test_public_traces_lose_no_row(name, rows, key_block_size):
    workload = read_workload(DATA / name)
    assert len(workload) == rows and workload.description["left_out"] == 0
    assert workload.key_block_size == key_block_size
    assert (np.diff(workload.requests["arrival_s"]) >= 0).all()
    if key_block_size:
        tokens = workload.requests["prompt_tokens"]
        assert [len(workload.keys(i, 16)) for i in range(50)] == (tokens // 16).head(50).tolist()


@needs_data
def test_azure_lengths_and_span_are_those_of_the_file():
    requests = read_workload(DATA / "azure2023_conv.csv").requests
    with (DATA / "azure2023_conv.csv").open() as file:
        lines = [line.split(",") for line in file.read().splitlines()[1:]]
    assert requests["prompt_tokens"].sum() == sum(int(line[1]) for line in lines)
    assert requests["output_tokens"].sum() == sum(int(line[2]) for line in lines)
    assert requests["arrival_s"].iat[1] == pytest.approx(50.9951690 - 46.6805900, abs=1e-7)


def test_azure_2024_stamps_and_failures(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,5,2\n2024-05-10 00:00:01.009930+00:00,5,0\n2024-05-10 00:01:00+00:00,6,3\n"
    )
    workload = read_workload(path)
    assert workload.requests["arrival_s"].tolist() == pytest.approx([0, 59.99007])
    assert (workload.description["rows"], workload.description["left_out"]) == (3, 1)


def test_burstgpt_rows_without_response_are_counted(tmp_path):
    path = tmp_path / "burst.csv"
    path.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n118,GPT-4,417,276,693,API\n"
    )
    workload = read_workload(path)
    assert workload.requests["arrival_s"].tolist() == [0, 113]
    assert workload.description["left_out"] == 1


BROKEN_LOGS = {
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,-5,2\n": "ContextTokens is -5 in row 1",
    "TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,5,2\n": "TIMESTAMP is 'soon' in row 1",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n": "has no rows",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,5,2\n2023-11-16 18:17:02,5,2\n": "row 2.*sort",
    "ContextTokens,GeneratedTokens\n5,2\n": "lacks the column TIMESTAMP",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,0,2\n": "prompt_tokens is 0 in row 1",
    '{"timestamp": 0, "input_length": 5}\n': "line 1 lacks a number output_length",
    '{"timestamp": 0, "input_length": -5, "output_length": 2}\n': "input_length is -5 in row 1",
    '{"timestamp": 0,\n': "line 1 is not a JSON object",
    '{"timestamp": 0, "input_length": 99, "output_length": 2, "hash_ids": [1, 2, 3, 4, 5]}\n': "fit no block size",
    '{"timestamp": 0, "input_length": 9, "output_length": 2, "hash_ids": ["a"]}\n': "must be a list of whole numbers",
    '{"timestamp": 0, "input_length": 9, "output_length": 2, "hash_ids": 7}\n': "must be a list of whole numbers",
    '{"timestamp": Infinity, "input_length": 9, "output_length": 2}\n': "row 1 .* is no time",
    '{"timestamp": 0, "input_length": 1e30, "output_length": 2}\n': "input_length is 1e.30 in row 1",
    '{"timestamp": 0, "input_length": \udcff': "line 1 is not a JSON object",
    "arrival_s,prompt_tokens,output_tokens,max_tokens\n0,5,3,2\n": "output_tokens is 3 in row 1, above its max_tokens",
    "arrival_s,prompt_tokens\n0,5\n": "lack the column output_tokens",
}


@pytest.mark.parametrize(("text", "message"), BROKEN_LOGS.items())
def test_a_wrong_log_is_one_clear_sentence(tmp_path, text, message):
    path = tmp_path / "log"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TraceError, match=message) as error:
        read_workload(path)
    assert str(path) in str(error.value)


def test_a_trace_is_a_workload_again():
    workload = SYNTHETIC.generate(3)
    back = workload_of(Trace({}, requests=workload.requests))
    pd.testing.assert_frame_equal(back.requests, workload.requests)
    assert len(back.before(workload.requests["arrival_s"].iat[10])) == 10


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(0, 2000), st.sampled_from([8, 16, 32, 64, 128, 256]))
def test_converted_keys_are_equal_exactly_where_tokens_are(length_a, length_b, shared, block_size):
    """Two prompts that share a prefix share as many blocks of any size as lie within the shared stored blocks."""
    stored = 64
    shared = min(shared, length_a, length_b) // stored * stored
    keys_a = np.arange(-(-length_a // stored))
    keys_b = np.arange(-(-length_b // stored))
    keys_b = np.where(keys_b < shared // stored, keys_b, 1000 + keys_b)
    a, b = (convert_keys(k, stored, block_size, n) for k, n in ((keys_a, length_a), (keys_b, length_b)))
    assert (a.size, b.size) == (length_a // block_size, length_b // block_size)
    assert len(set(a.tolist())) == a.size
    common = min(a.size, b.size)
    assert (a[:common] == b[:common]).tolist() == [(i + 1) * block_size <= shared for i in range(common)]


def test_keys_of_an_unrelated_block_size_are_refused():
    with pytest.raises(InputError, match="block_size is 24"):
        convert_keys(np.arange(3), 64, 24, 100)


def workload_of_lengths(prompt: int, output: int) -> Workload:
    return Workload(requests_of(np.zeros(1), np.array([prompt]), np.array([output])))


def test_a_request_that_can_never_finish_is_refused():
    config = EngineConfig(num_blocks=11, block_size=16, max_model_len=400, max_num_seqs=4)
    check_fits(workload_of_lengths(100, 61), config)  # 160 tokens of KV: exactly the 10 usable blocks
    with pytest.raises(CapacityError, match=r"needs 11 KV blocks .* raise num_blocks to 12"):
        check_fits(workload_of_lengths(100, 62), config)
    with pytest.raises(InputError, match="prompt of 400 tokens, which leaves no room"):
        check_fits(workload_of_lengths(400, 1), config)
    with pytest.raises(InputError, match="needs 401 tokens"):
        check_fits(workload_of_lengths(399, 2), config)
