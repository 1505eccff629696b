"""`engine bench` from the command line: traces appear whole, wrong input is one sentence and leaves nothing behind."""

import json

import pytest
from typer.testing import CliRunner

from engine.core.metrics import summarize
from engine.core.trace import read_trace
from roofline.errors import CapacityError, InputError, ModelError, TraceError
from tests.engine.bench.tiny_preset import tiny_preset

SMALL = ["--input-len", "uniform:8:24", "--output-len", "4", "--request-rate", "inf", "--num-requests", "4"]
SHORT_STEPS = ["--max-num-batched-tokens", "64", "--max-num-seqs", "16"]  # a warm-up of 64 tokens, not of 512


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    """The machine's ceilings are not what is tested here; three seconds a run are saved."""
    monkeypatch.setattr("engine.bench.machine.COPY_BYTES", 8 << 20)
    monkeypatch.setattr("engine.bench.machine.GEMM_SIZE", 128)


def bench(*arguments):
    from engine.cli import app

    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.mark.model
def test_serve_writes_a_trace_and_the_bench_json(tmp_path):
    out = tmp_path / "t"
    result = bench("serve", *SMALL, *SHORT_STEPS, "--slo", "ttft:60000", "--out", out, "--format", "csv", "--json")
    assert result.exit_code == 0, result.exception
    printed, trace = json.loads(result.stdout), read_trace(out)
    assert printed["summary"] == summarize(trace)
    assert printed["summary"]["num_requests"] == 4 and printed["summary"]["output_throughput"] > 0
    assert printed["roofline"]["fraction"] > 0 and printed["trace"] == str(out)
    written = json.loads((out / "bench.json").read_text())
    assert (written["completed"], written["output_lens"], written["request_rate"]) == (4, [4] * 4, "inf")
    assert written["request_goodput"] == pytest.approx(written["request_throughput"])
    assert sorted(entry.name for entry in out.iterdir()) == ["bench.json", "meta.json", "requests.csv", "steps.csv"]


@pytest.fixture
def dummy(tmp_path):
    """Options of a tiny engine of random weights."""
    tiny_preset(tmp_path / "tiny")
    return ["--model", tmp_path / "tiny", "--load-format", "dummy", "--device", "cpu"]


def test_few_blocks_force_preemptions_and_the_table_says_so(dummy, tmp_path):
    sizes = ["--input-len", "30", "--output-len", "40", "--request-rate", "inf", "--num-requests", "4"]
    result = bench("serve", *dummy, *sizes, *SHORT_STEPS, "--num-blocks", 10, "--out", tmp_path / "t")
    assert result.exit_code == 0, result.exception
    preemptions = read_trace(tmp_path / "t").requests["num_preemptions"].sum()
    assert preemptions > 0 and f"{preemptions} preemptions" in result.stdout
    assert "of the roofline" in result.stdout and "TTFT" in result.stdout


def test_steps_writes_a_trace_of_steps(dummy, tmp_path):
    lists = ["--decode-batches", "1,2", "--contexts", "16", "--chunks", "8", "--histories", "0,16"]
    more = ["--mixed-chunks", "8", "--packs", "2", "--skewed-batches", "", "--repeats", 1, "--out", tmp_path / "t"]
    result = bench("steps", *dummy, *lists, *more)
    assert result.exit_code == 0, result.exception
    trace = read_trace(tmp_path / "t")
    assert len(trace.steps) == 7 and not len(trace.requests.columns)
    assert trace.meta["workload"]["contexts"] == [16]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--output-len", "0"], InputError, "length is 0 tokens"),
        (["--input-len", "-5"], InputError, "length is -5 tokens"),
        (["--request-rate", "0"], InputError, "request rate is 0"),
        (["--num-requests", "0"], InputError, "number of requests is 0"),
        (["--duration", "-1"], InputError, "duration is -1"),
        (["--slo", "ttft:fast"], InputError, "SLO 'ttft:fast'"),
        (["--trace", "nowhere.csv"], TraceError, "nowhere.csv does not exist"),
        (["--model", "nowhere"], ModelError, "nowhere"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(tmp_path, arguments, error, message):
    result = bench("serve", *arguments, "--out", tmp_path / "t")
    assert isinstance(result.exception, error) and message in str(result.exception)
    assert not (tmp_path / "t").exists()


def test_what_the_model_cannot_serve_is_refused_before_the_run(dummy, tmp_path):
    sizes = ["--input-len", "100", "--num-blocks", "4", "--num-requests", "1"]
    result = bench("serve", *dummy, *sizes, "--out", tmp_path / "t")
    assert isinstance(result.exception, CapacityError) and "raise num_blocks" in str(result.exception)
    assert not (tmp_path / "t").exists()


def test_a_folder_of_other_files_is_refused_before_the_run(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    for command in ("serve", "steps"):
        result = bench(command, "--out", tmp_path)
        assert isinstance(result.exception, TraceError) and "mine.txt" in str(result.exception)


def test_lists_are_numbers_with_commas(tmp_path):
    result = bench("steps", "--decode-batches", "1;2", "--out", tmp_path / "t")
    assert isinstance(result.exception, InputError) and "--decode-batches is '1;2'" in str(result.exception)
