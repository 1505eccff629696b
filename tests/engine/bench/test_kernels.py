"""The kernel table: what it counts, that it times nothing wrong, and how it times."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.bench import timing
from engine.bench.kernel_cases import cases, decode_case, norm_case, prefill_case, write_case
from engine.bench.kernel_sizes import H200, SMOKE, Heads
from engine.bench.kernels import OURS, figures, kernels_table, measure_kernels
from engine.bench.machine import Machine
from engine.bench.targets import load_targets

MACHINE = Machine("a test processor", 2, 1, 8 << 30, 1e10, 1.2e10, {"fp32": 1e11})
CPU = torch.device("cpu")
ODD = replace(
    SMOKE, heads=Heads(query=6, kv=2, dim=8, block_size=4), rows=(3,), hidden=24, intermediate=40, vocabulary=50
)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(timing, "_ROUNDS", (2, 3))


def measure(chosen):
    return measure_kernels(chosen, CPU, MACHINE, 0, lambda rows: None)


def test_every_operation_is_right_and_timed_at_odd_sizes():
    chosen = [*cases(ODD), decode_case(ODD, 3, 1), decode_case(ODD, 2, 7), prefill_case(ODD, 5, 3)]
    told = []
    rows = measure_kernels(chosen, CPU, MACHINE, 0, told.append)
    assert [row.failure for row in rows if row.implementation == OURS] == [None] * len(chosen)
    assert [row for of_case in told for row in of_case] == rows
    for case in chosen:
        row = next(r for r in rows if (r.operation, r.size, r.implementation) == (case.operation, case.size, OURS))
        assert row.bytes_per_s * row.seconds == pytest.approx(case.memory_bytes)
        least_s = max(case.memory_bytes / 1.2e10, case.flops / 1e11)
        assert row.fraction == pytest.approx(least_s / row.seconds) and row.error < 1e-3
    json.dumps([row.as_dict() for row in rows], allow_nan=False)


def test_a_wrong_result_is_never_timed_and_a_broken_rival_costs_itself_alone():
    case = norm_case(ODD, 3)

    def fail(inputs):
        raise ImportError("no such symbol\nmore")

    rivals = {"wrong": lambda x: 1.5 * x["x"], "not a number": lambda x: x["x"] * float("nan"), "broken": fail}
    ours, *others = measure([replace(case, rivals=rivals)])
    assert ours.seconds > 0 and [row.seconds for row in others] == [None] * 3
    assert "wrong result" in others[0].failure and "wrong result" in others[1].failure
    assert others[2].failure == "ImportError: no such symbol"
    assert kernels_table([ours, *others]).row_count == 4


def test_an_operation_that_leaves_its_side_effect_out_is_wrong():
    """The cache and the residual count as well, not only what is returned."""
    for make, name in ((norm_case, "residual"), (write_case, "keys"), (write_case, "values")):
        case = make(ODD, 3)

        def partial(inputs, case=case, name=name):
            before = inputs[name].clone()
            returned = case.ours(inputs)
            inputs[name].copy_(before)
            return returned

        (row,) = (r for r in measure([replace(case, rivals={"partial": partial})]) if r.implementation == "partial")
        assert "wrong result" in row.failure


def test_counts_are_the_operations_least():
    decode = decode_case(H200, 256, 1024)
    kv_bytes = 2 * 256 * 1024 * 8 * 128 * 2
    assert kv_bytes == 1_073_741_824 and decode.memory_bytes == kv_bytes + 2 * 256 * 32 * 128 * 2
    prefill = prefill_case(H200, 8192, 0)
    assert prefill.flops == 4 * 32 * 128 * sum(range(1, 8193))
    assert prefill_case(H200, 1, 99).flops == decode_case(H200, 1, 100).flops


def test_the_suite_answers_the_targets_about_kernels():
    answered = {case.target[0] for case in cases(H200) if case.target}
    wanted = {target.key for target in load_targets() if "_attention_" in target.key}
    assert answered == wanted
    units = {target.key: target.unit for target in load_targets()}
    kinds = {"TB/s": "bytes_per_s", "us": "seconds", "TFLOP/s": "flop_per_s"}
    assert all(case.target[1] == kinds[units[case.target[0]]] for case in cases(H200) if case.target)


def test_figures_are_the_engines():
    case = replace(decode_case(ODD, 2, 8), target=("some_figure", "seconds"))
    rows = measure([case])
    assert figures([case], rows) == {"some_figure": rows[0].seconds} and rows[0].implementation == OURS
    assert figures([case], rows[1:]) == {}


def test_blocks_are_scattered_and_every_sequence_has_its_own():
    inputs = decode_case(ODD, 5, 9).make(CPU, torch.Generator().manual_seed(0))
    tables = inputs["tables"].numpy()
    assert tables.dtype == np.int32 and sorted(tables.ravel()) == list(range(1, 16))
    assert not (np.diff(tables.ravel()) == 1).all()
    assert torch.equal(inputs["dense_k"][2, :, 5], inputs["k_cache"][int(tables[2, 1]), 1])


@given(st.integers(1, 1 << 40), st.integers(0, 1 << 28))
def test_input_sets_exceed_the_cache_or_are_many(set_bytes, cache):
    count = timing.input_sets(set_bytes, cache)
    assert 1 <= count <= timing.MOST_SETS
    assert count * set_bytes >= timing.CACHES * cache or count == timing.MOST_SETS


def test_calls_take_turns_and_the_median_of_one_is_told():
    seen = []
    found = timing.time_calls([lambda: seen.append(0), lambda: seen.append(1)], CPU, budget_s=0.01)
    assert seen == [0, 1] * (len(seen) // 2) and len(seen) == 2 * (found.rounds + 2)
    assert 0 < found.seconds < 0.01 and found.spread >= 0 and found.graph is None


def test_the_command_prints_a_table_and_writes_its_rows(tmp_path, monkeypatch):
    from engine.cli import app

    monkeypatch.setattr("engine.bench.machine.COPY_BYTES", 8 << 20)
    monkeypatch.setattr("engine.bench.machine.GEMM_SIZE", 128)
    arguments = ["bench", "kernels", "--device", "cpu", "--out", str(tmp_path / "k.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    assert "Ceilings measured on" in result.stdout
    written = json.loads((tmp_path / "k.json").read_text())
    assert {row["failure"] for row in written["kernels"]} == {None} and written["hardware"]["copy_bytes_per_s"] > 0
    wrong = CliRunner().invoke(app, ["bench", "kernels", "--device", "cpu", "--suite", "b300"])
    assert "suite 'b300' is not known; known are h200, smoke" in str(wrong.exception)
