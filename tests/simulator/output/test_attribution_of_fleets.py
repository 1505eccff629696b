"""Whatever happens in a fleet (faults, retries, transfers, admission), the parts of a latency are its sum."""

import numpy as np
from hypothesis import given, settings

from engine.core import metrics
from simulator.output.attribution import E2E_PARTS, TTFT_PARTS, parts
from tests.simulator.fleet.runs import record, runs


@settings(max_examples=80, deadline=None)
@given(runs(trouble=True))
def test_the_parts_are_the_whole_in_every_fleet(run):
    fleet, load = run
    requests = record(fleet, load, True).requests
    done = metrics.completed(requests)
    divided = parts(requests, fleet.client)
    np.testing.assert_allclose(divided[list(TTFT_PARTS)].sum(axis=1), metrics.ttft_s(requests)[done], atol=1e-9)
    np.testing.assert_allclose(divided[list(E2E_PARTS)].sum(axis=1), metrics.e2e_s(requests)[done], atol=1e-9)
    assert (divided >= -1e-9).all().all()
    assert divided["retries"].max() < 1e-9 or fleet.patience is not None or done.sum() == 0
    assert divided["transfer"].max() < 1e-9 or fleet.split is not None or done.sum() == 0
