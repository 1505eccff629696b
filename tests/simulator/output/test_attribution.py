"""The parts of a latency are its sum, none is negative, and each is where it was caused."""

import numpy as np
import pandas as pd
import pytest

from engine.core import metrics
from engine.core.trace import Trace
from engine.core.trace_meta import ClientLink
from simulator.output.attribution import E2E_PARTS, KNOBS, TTFT_PARTS, attribution, parts
from tests.simulator.output.runs import LINK, crowded


@pytest.fixture(scope="module")
def trace():
    return crowded()


@pytest.fixture(scope="module")
def divided(trace):
    return parts(trace.requests, LINK)


def test_the_parts_are_the_whole(trace, divided):
    ttft, e2e = metrics.ttft_s(trace.requests), metrics.e2e_s(trace.requests)
    np.testing.assert_allclose(divided[list(TTFT_PARTS)].sum(axis=1), ttft, atol=1e-9)
    np.testing.assert_allclose(divided[list(E2E_PARTS)].sum(axis=1), e2e, atol=1e-9)


def test_no_part_is_negative_and_all_that_can_happen_here_does(divided):
    assert (divided >= -1e-9).all().all()
    happened = {name for name in divided if divided[name].max() > 1e-6}
    assert happened == {"network", "queue", "preemption", "prefill", "interruption", "decode"}


def test_only_who_was_preempted_lost_time_to_it(trace, divided):
    untouched = trace.requests["num_preemptions"] == 0
    assert untouched.any() and not untouched.all()
    assert (divided.loc[untouched, ["preemption", "interruption"]] == 0).all().all()
    hurt = divided.loc[~untouched, ["preemption", "interruption"]].sum(axis=1)
    assert (hurt > 0).mean() > 0.95  # a request can be preempted before anything of it was computed


def test_the_queue_is_what_its_stamps_say(trace, divided):
    waited = trace.requests["first_scheduled_s"] - trace.requests["reach_s"]
    np.testing.assert_allclose(divided["queue"], waited)
    np.testing.assert_allclose(divided["network"], LINK.to_engine_s + LINK.to_client_s)


def test_a_trace_that_says_less_has_larger_parts(trace):
    little = trace.requests[["arrival_s", "first_token_s", "finish_s", "output_tokens"]]
    divided = parts(little, ClientLink())
    np.testing.assert_allclose(divided["prefill"], trace.requests["first_token_s"] - trace.requests["arrival_s"])
    assert (divided[["queue", "preemption", "held"]] == 0).all().all()


def test_the_tail_is_the_slowest_and_its_parts_sum_to_more(trace):
    found = attribution(trace, "ttft_s", 90)
    ttft = metrics.ttft_s(trace.requests)
    assert found.num_requests == len(ttft)
    assert found.num_tail == (ttft >= found.threshold_s).sum() >= len(ttft) // 10
    assert sum(found.tail_s.values()) == pytest.approx(ttft[ttft >= found.threshold_s].mean())
    assert sum(found.mean_s.values()) == pytest.approx(ttft.mean())
    assert found.knob == KNOBS[found.largest]


def test_a_queue_is_blamed_where_there_is_one():
    """The same requests all at once: what they wait for is each other."""
    rows = {"arrival_s": [0.0] * 4, "first_scheduled_s": [0.0, 1.0, 2.0, 3.0], "first_token_s": [1.0, 2.0, 3.0, 4.0]}
    requests = pd.DataFrame({**rows, "finish_s": [5.0] * 4, "output_tokens": [9] * 4})
    found = attribution(Trace({}, requests=requests))
    assert found.largest == "queue" and found.tail_s["queue"] == 3.0 and found.tail_s["prefill"] == 1.0


def test_nothing_completed_has_no_parts():
    empty = pd.DataFrame({name: pd.Series(dtype=float) for name in ("arrival_s", "first_token_s", "finish_s")})
    assert attribution(Trace({}, requests=empty)) is None
