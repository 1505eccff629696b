"""Differences are taken seed by seed, so that luck falls out; what has no steady state is not compared."""

import numpy as np
import pytest

from roofline.errors import InputError
from simulator.output import tables
from simulator.output.exports import compare_json
from simulator.planning.compare import FIGURES, compare
from simulator.planning.interval import independent_mean
from tests.simulator.scenarios import small

SHORT = {"run__max_requests": 900}


@pytest.fixture(scope="module")
def found():
    variants = [small(name="one", **SHORT), small(name="same", **SHORT), small(name="two", fleet__replicas=2, **SHORT)]
    return compare(variants, seeds=3)


def test_a_scenario_does_not_differ_from_itself(found):
    same = found.contenders[1]
    assert same.differences
    assert all((d.value, d.low, d.high) == (0, 0, 0) for d in same.differences.values())


def test_a_second_replica_is_faster_beyond_chance_and_costs_more_a_token(found):
    two = found.contenders[2].differences
    assert two["mean_tpot_s"].high < 0
    assert two["usd_per_million_output_tokens"].low > 0.8
    assert two["output_tokens_per_gpu_s"].value == pytest.approx(-0.5, abs=0.05)


def test_figures_are_means_over_the_seeds_and_differences_are_paired(found):
    one, _, two = found.contenders
    values = [[run.latencies["ttft_s"].mean.value for run in c.runs] for c in (one, two)]
    assert one.figures["mean_ttft_s"].value == pytest.approx(np.mean(values[0]))
    paired = independent_mean(np.array(values[1]) / np.array(values[0]) - 1)
    assert two.differences["mean_ttft_s"] == paired


def test_pairs_leave_less_in_doubt_than_two_independent_samples_would(found):
    one, _, two = found.contenders
    means = [np.array([run.latencies["e2e_s"].mean.value for run in c.runs]) for c in (one, two)]
    apart = np.hypot(*(values.std(ddof=1) / values.mean() for values in means)) * means[1].mean() / means[0].mean()
    difference = two.differences["mean_e2e_s"]
    assert (difference.high - difference.low) / 2 < 4.303 / np.sqrt(3) * apart  # Student's t of 2 degrees, 97.5 %


def test_no_steady_state_has_no_figures(capsys):
    found = compare([small(**SHORT), small(name="too much", workload__request_rate=300, **SHORT)], seeds=2)
    assert not found.contenders[1].is_steady and found.contenders[1].figures == {}
    tables.print_comparison(found)
    assert "too much: no steady state" in capsys.readouterr().out
    document = compare_json(found)
    assert [scenario["steady"] for scenario in document["scenarios"]] == [True, False]
    assert set(document["scenarios"][0]["figures"]) == set(FIGURES)


@pytest.mark.parametrize(
    ("scenarios", "seeds", "told"),
    [
        ([small()], 3, "1 scenario"),
        ([small(), small()], 1, "1 seed"),
        ([small(), small(slo__percentile=99)], 2, "slo.percentile is 95 in .* and 99"),
    ],
)
def test_what_cannot_be_compared_is_said(scenarios, seeds, told):
    with pytest.raises(InputError, match=told):
        compare(scenarios, seeds)
