"""The whole campaign on a CPU, each stage in a process of its own, on the embedded model."""

import pytest

from engine.bench.bundle import bundles_in, unpack
from engine.bench.campaign import Campaign
from engine.bench.presets import CPU_SMOKE
from engine.core.trace import read_trace


@pytest.mark.benchmark
@pytest.mark.model
@pytest.mark.timeout(900)
def test_the_smoke_campaign_runs_every_stage(tmp_path):
    summary = Campaign(CPU_SMOKE, tmp_path / "out", 900).run(lambda result: None)
    assert {stage["name"]: stage["status"] for stage in summary["stages"]} == {
        stage.name: "done" for stage in CPU_SMOKE.stages
    }, summary["stages"]
    traces = [read_trace(t) for b in bundles_in(tmp_path / "out") for t in unpack(b, tmp_path / "t" / b.stem)]
    assert len(traces) == 6 and all(trace.meta["model"]["name"] == "smollm2-135m" for trace in traces)
    figures = summary["figures"]
    assert figures["throughput"]["kv-pressure"]["num_preemptions"] > 0
    assert figures["serve"]["capacity_requests_per_s"] > 0
