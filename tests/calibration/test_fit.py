"""The fit: it finds a known truth, survives bad rows and few rows, and what it returns obeys the laws."""

import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.accuracy import predicted_seconds
from calibration.fit import GROUPED, IN_TIME, MIN_ROWS, fit
from calibration.fitted import LAGS, QUANTILES
from calibration.form import StepTimeForm
from calibration.measurements import from_table, join
from calibration.prior import roofline_of
from roofline.errors import TraceError
from roofline.step_time import BatchWork, chunk_attn_pairs
from tests.calibration.synthetic import TRUTH, measured, steps_table
from tests.roofline.step_time_laws import check_step_time_laws

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ADDITIVE = StepTimeForm(
    fixed_s=8e-3, s_per_token=4e-4, s_per_attn_pair=2e-8, s_per_decode_kv_token=4e-7, s_per_decode_seq=1e-3, join="sum"
)
WHOLE = StepTimeForm(
    fixed_s=5e-4, weight_read_s=1.2e-2, s_per_token=4e-5, s_per_attn_pair=2e-9, s_per_decode_kv_token=4e-8,
    s_per_decode_seq=5e-5, join="max", scope="whole",
)  # fmt: skip
LONG_PROMPT = BatchWork(
    num_prefill_seqs=1, prefill_tokens=2048, prefill_kv_tokens=14_336, prefill_attn_pairs=chunk_attn_pairs(2048, 14_336)
)


def mape(model, measurements):
    return float(np.abs(predicted_seconds(model, measurements) / measurements.seconds - 1).mean())


def test_finds_the_costs_of_the_truth():
    model = fit(measured(3_000, noise=0.03), NOW)
    found = model.form
    assert (found.join, found.scope) == ("max", "linear")
    for name in ("s_per_token", "s_per_attn_pair", "s_per_decode_kv_token"):
        assert getattr(found, name) == pytest.approx(getattr(TRUTH, name), rel=0.05), name
    assert found.s_per_decode_seq == pytest.approx(TRUTH.s_per_decode_seq, rel=0.15)
    assert found.fixed_s + found.weight_read_s == pytest.approx(TRUTH.fixed_s + TRUTH.weight_read_s, rel=0.02)


@pytest.mark.parametrize("truth", [TRUTH, ADDITIVE, WHOLE], ids=["linear", "additive", "whole"])
def test_predicts_unseen_steps_of_any_engine(truth):
    model = fit(measured(1_500, truth=truth), NOW)
    assert mape(model, measured(500, seed=1, noise=0.0, truth=truth)) < 0.01
    check_step_time_laws(model, max_examples=40)


def test_noise_does_not_bias_the_total():
    steps = measured(4_000, noise=0.2)
    model = fit(steps, NOW)
    assert predicted_seconds(model, steps).sum() == pytest.approx(steps.seconds.sum(), rel=0.02)


def test_outliers_are_left_out_counted_and_harmless():
    table = steps_table(1_000)
    table.loc[::50, "wall_s"] *= 30.0
    table.loc[7, "wall_s"] /= 40.0
    model = fit(from_table(table), NOW)
    assert model.rows.outliers == 21
    assert model.rows.used == 979
    assert model.rows.outlier_time_share == pytest.approx(
        table.wall_s[[7, *range(0, 1000, 50)]].sum() / table.wall_s.sum()
    )
    assert mape(model, measured(300, seed=1, noise=0.0)) < 0.01


def test_thirty_rows_are_enough():
    assert mape(fit(measured(30, noise=0.03), NOW), measured(500, seed=1, noise=0.0)) < 0.08


def test_too_few_rows_are_refused():
    with pytest.raises(TraceError, match=rf"has {MIN_ROWS - 1} usable steps.*at least {MIN_ROWS}"):
        fit(measured(MIN_ROWS - 1), NOW)


def test_the_roofline_answers_for_what_was_not_measured():
    meta = {"model": {"name": "llama-3.1-8b"}, "hardware": {"name": "H100"}}
    truth = roofline_of(meta)
    short = steps_table(400)
    short = short[(short.prefill_kv_tokens == 0) & (short.prefill_tokens < 300)]
    short = from_table(short)
    short.seconds[:] = [truth.seconds(short.work(i)) for i in range(len(short))]
    with_prior, without = fit(short, NOW, truth), fit(short, NOW)
    error = [abs(model.seconds(LONG_PROMPT) / truth.seconds(LONG_PROMPT) - 1) for model in (with_prior, without)]
    assert error[0] < 0.3
    assert error[0] <= error[1]
    check_step_time_laws(with_prior, max_examples=40)


def test_the_prior_bows_to_the_data():
    wrong = roofline_of({"model": {"name": "llama-3.1-70b"}, "hardware": {"name": "L40S"}})
    assert mape(fit(measured(300), NOW, wrong), measured(300, seed=1, noise=0.0)) < 0.02


def test_decodes_alone_say_so():
    table = steps_table(400)
    model = fit(from_table(table[table.num_prefill_seqs == 0]), NOW)
    assert any("No step holds a prefill" in note for note in model.notes)
    assert not model.in_range(LONG_PROMPT)
    check_step_time_laws(model, max_examples=40)


def test_range_is_that_of_the_measurements():
    steps = measured(300)
    model = fit(steps, NOW)
    assert all(model.in_range(steps.work(index)) for index in range(len(steps)))
    assert not model.in_range(BatchWork(num_decode_seqs=500, decode_tokens=500, decode_kv_tokens=500))


def test_error_table_adds_up():
    model = fit(measured(800), NOW)
    for method in (GROUPED, IN_TIME):
        whole = model.error(method)
        parts = [model.error(method, region) for region in ("decode", "prefill", "mixed")]
        assert whole.n == sum(part.n for part in parts)
        assert whole.mape == pytest.approx(sum(part.n * part.mape for part in parts) / whole.n)
        assert whole.mape < 0.04
        batches = [c for c in model.errors if (c.method, c.region) == (method, "decode") and "batch" in c.cell]
        assert sum(c.n for c in batches) == parts[0].n
    assert model.error(GROUPED).n == 800


def test_residuals_describe_the_noise():
    stats = fit(measured(4_000, noise=0.05), NOW).residuals["all"]
    assert stats.std == pytest.approx(0.05, rel=0.1)
    assert stats.quantiles[QUANTILES.index(0.95)] == pytest.approx(1.645 * 0.05, rel=0.15)
    assert all(abs(value) < 0.06 for value in stats.autocorrelation)  # white: 4 sigma of 1/sqrt(4000)


def test_drift_shows_as_autocorrelation():
    table = steps_table(2_000, noise=0.005)
    table["wall_s"] *= 1 + 0.05 * np.sin(np.arange(2_000) / 100)
    stats = fit(from_table(table), NOW).residuals["all"]
    assert stats.autocorrelation[LAGS.index(10)] > 0.8


def test_a_fit_is_deterministic():
    assert fit(measured(300), NOW) == fit(measured(300), NOW)


def test_several_traces_are_one_fit():
    both = join([measured(400), measured(400, seed=1)])
    assert len(both) == 800
    assert fit(both, NOW).rows.used == 800


@pytest.mark.benchmark
def test_a_hundred_thousand_rows_take_seconds():
    small = steps_table(10_000)
    table = pd.concat([small] * 10, ignore_index=True)
    table["wall_s"] *= np.exp(np.random.default_rng(1).normal(0, 0.02, len(table)))
    steps = from_table(table)
    start = time.process_time()  # of this process alone: other work on the machine does not count
    model = fit(steps, NOW)
    spent_s = time.process_time() - start
    print(f"fit of 100,000 steps: {spent_s:.1f} s of processor time")
    assert spent_s < 10  # measured: 3 s on one core
    assert model.rows.used == 100_000


@st.composite
def small_tables(draw):
    """Tables that no physics made: any composition with any time."""
    rows = []
    for _ in range(draw(st.integers(MIN_ROWS, 25))):
        chunks, seqs = draw(st.integers(0, 3)), draw(st.integers(0, 64))
        chunks = chunks if seqs else max(chunks, 1)
        rows.append(
            {
                "num_prefill_seqs": chunks,
                "prefill_tokens": draw(st.integers(chunks, 4096)) if chunks else 0,
                "prefill_kv_tokens": draw(st.integers(0, 8192)) if chunks else 0,
                "num_decode_seqs": seqs,
                "decode_kv_tokens": seqs * draw(st.integers(1, 4096)),
                "wall_s": draw(st.floats(1e-6, 10.0)),
            }
        )
    return pd.DataFrame(rows)


@settings(max_examples=15)
@given(small_tables())
def test_no_table_makes_time_negative_or_decreasing(table):
    model = fit(from_table(table), NOW)
    assert all(np.isfinite(cost) and cost >= 0 for cost in model.form.costs.values())
    previous = 0.0
    for step in range(6):
        tokens = 4**step
        work = BatchWork(
            num_prefill_seqs=1, prefill_tokens=tokens, prefill_attn_pairs=chunk_attn_pairs(tokens, 0),
            num_decode_seqs=tokens, decode_tokens=tokens, decode_kv_tokens=tokens * 100, decode_kv_max=100,
        )  # fmt: skip
        seconds = model.seconds(work)
        assert seconds > 0
        assert seconds >= previous
        previous = seconds
