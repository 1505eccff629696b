"""Classes divide the requests without loss, and whoever is served worse is seen to be."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import metrics
from engine.core.metrics import Slo
from roofline.errors import InputError
from simulator.output.classes import CLASSES, by_class
from tests.simulator.output.runs import crowded

SLO = Slo(ttft_s=1.0)


@pytest.fixture(scope="module")
def requests():
    found = crowded(300).requests
    return found.assign(tenant=np.where(found.index % 3 == 0, "a", "b"), priority=found.index % 2)


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_are_all_of_it(requests, name):
    found = by_class(requests, name, SLO)
    assert sum(one.num_requests for one in found) == len(requests)
    assert sum(one.goodput_per_s for one in found) == pytest.approx(metrics.goodput(requests, SLO))
    kept = sum(one.attainment.value * one.num_requests for one in found)
    assert kept == pytest.approx(metrics.meets(requests, SLO).sum())
    assert len({one.name for one in found}) == len(found) >= 2


def test_a_class_of_its_own_has_its_own_figures(requests):
    slow = requests.copy()
    late = slow["tenant"] == "a"
    slow.loc[late, ["first_token_s", "finish_s"]] += 5.0
    by_name = {one.name: one for one in by_class(slow, "tenant", SLO, 90)}
    before = {one.name: one for one in by_class(requests, "tenant", SLO, 90)}
    assert by_name["a"].ttft_s.value == pytest.approx(before["a"].ttft_s.value + 5.0)
    assert by_name["b"] == before["b"] or by_name["b"].attainment == before["b"].attainment
    assert by_name["a"].attainment.value == 0.0


def test_who_failed_counts_against_the_class(requests):
    failed = requests.copy()
    failed.loc[failed["priority"] == 1, "finish_reason"] = "rejected"
    low, high = by_class(failed, "priority", SLO)
    assert (high.num_completed, high.attainment.value) == (0, 0.0) and np.isnan(high.ttft_s.value)
    assert low.num_completed == low.num_requests


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=20))
def test_lengths_are_in_the_class_that_names_them(lengths):
    frame = pd.DataFrame({"arrival_s": 0.0, "prompt_tokens": lengths, "output_tokens": 1})
    frame = frame.assign(first_token_s=1.0, finish_s=1.0)
    found = by_class(frame, "prompt_tokens")
    ends = [tuple(int(end.replace(",", "")) for end in one.name.split(" to ")) for one in found]
    assert ends == sorted(ends)
    for (low, high), one in zip(ends, found, strict=True):
        assert sum(low <= length <= high for length in lengths) == one.num_requests
        assert one.attainment is None and one.goodput_per_s is None


def test_a_class_that_is_not_there_is_said(requests):
    with pytest.raises(InputError, match="no class 'colour'; choose one of tenant, priority, prompt_tokens"):
        by_class(requests, "colour")
    with pytest.raises(InputError, match="no class 'tenant'; choose one of prompt_tokens"):
        by_class(requests.drop(columns=["tenant", "priority"]), "tenant")
