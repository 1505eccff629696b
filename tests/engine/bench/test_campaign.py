"""A campaign measures all it can in its time, says what it could not, and goes on where it was."""

import json
import sys
import time
import zipfile
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from engine.bench import campaign as campaigns
from engine.bench.bundle import bundles_in, read_result, unpack
from engine.bench.campaign import SUMMARY_FILE, Campaign, target_figures
from engine.bench.presets import CPU_SMOKE, H200, PRESETS, preset_named
from engine.bench.stage_report import StageReport
from engine.bench.stages import run_stage
from engine.core.trace import read_trace, require_for_fit, require_for_replay
from roofline.errors import InputError, ModelError, TraceError
from tests.engine.bench.tiny_preset import tiny_preset


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    monkeypatch.setattr("engine.bench.machine.COPY_BYTES", 8 << 20)
    monkeypatch.setattr("engine.bench.machine.GEMM_SIZE", 128)
    monkeypatch.setattr("engine.bench.timing._ROUNDS", (2, 3))


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    return tiny_preset(tmp_path_factory.mktemp("model") / "tiny")


def here(stage, folder, limit_s) -> str:
    """Runs a stage in this process."""
    run_stage(stage.plan, StageReport(folder), seed=0)
    return ""


def never(stage, folder, limit_s) -> str:
    raise AssertionError(f"{stage.name} is done and must not run again")


def test_every_stage_leaves_a_bundle_whose_traces_can_be_fitted_and_replayed(preset, tmp_path):
    told = []
    summary = Campaign(preset, tmp_path / "out", 600).run(told.append, here)
    assert {stage["name"]: stage["status"] for stage in summary["stages"]} == dict.fromkeys(
        ("kernels", "throughput", "steps", "serve", "transformers"), "done"
    ), summary["stages"]
    assert [result["name"] for result in told] == [stage.name for stage in preset.stages]
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["kernels.zip", "serve.zip", "steps.zip", SUMMARY_FILE, "throughput.zip", "transformers.zip"]
    assert json.loads((tmp_path / "out" / SUMMARY_FILE).read_text())["stages"] == summary["stages"]
    assert summary["hardware"]["copy_bytes_per_s"] > 0
    # This is no H200: its figures must not stand in the H200's table.
    assert {row["verdict"] for row in summary["targets"]["reached"]} == {"not yet measured"}
    assert_traces(tmp_path)
    figures = summary["figures"]
    assert figures["throughput"]["throughput"]["output_tokens"] == 4 * 8
    assert figures["transformers"]["transformers"]["output_tokens"] == 2 * 4
    assert figures["throughput"]["kv-pressure"]["num_preemptions"] > 0
    assert figures["throughput"]["utilisation_mixed"]["mbu"] > 0
    kept = Campaign(preset, tmp_path / "out", 600).run(told.append, never)
    assert kept["figures"] == figures and all(stage["kept"] for stage in kept["stages"])


def assert_traces(folder):
    traces = {}
    for bundle in bundles_in(folder / "out"):
        for path in unpack(bundle, folder / "traces" / bundle.stem):
            traces[f"{bundle.stem}/{path.name}"] = read_trace(path)
    assert set(traces) == {
        "throughput/mixed", "throughput/kv-pressure", "steps/steps", "serve/burst", "serve/load-0.5", "serve/load-1.5",
        "serve/kv-pressure",
    }  # fmt: skip
    for name, trace in traces.items():
        assert len(require_for_fit(trace)) > 0
        assert name == "steps/steps" or len(require_for_replay(trace)) > 0
        assert trace.meta["hardware"]["gemm_flop_per_s"]["fp32"] > 0
        assert trace.meta["model"]["shape"]["hidden_size"] == 48


def test_a_stage_that_fails_says_so_and_the_rest_goes_on(preset, tmp_path, monkeypatch):
    def broken(plan, report, seed):
        report.say("It began.")
        raise RuntimeError("the device went away\nand more")

    from engine.bench import stages

    monkeypatch.setitem(stages._STAGES, type(preset.stage("throughput").plan), broken)
    small = replace(preset, stages=preset.stages[:3])
    summary = Campaign(small, tmp_path, 600).run(lambda result: None, here)
    assert [stage["status"] for stage in summary["stages"]] == ["done", "failed", "done"]
    assert summary["stages"][1]["sentences"] == ["It began.", "RuntimeError: the device went away"]
    monkeypatch.undo()
    again = Campaign(small, tmp_path, 600).run(lambda result: None, here)
    assert [(stage["status"], stage["kept"]) for stage in again["stages"]] == [
        ("done", True), ("done", False), ("done", True)
    ]  # fmt: skip


def test_what_is_not_there_is_skipped_in_words(preset, tmp_path, monkeypatch):
    def absent(*_):
        raise ModelError("transformers is not installed, so there is nothing to compare with.")

    monkeypatch.setattr("engine.bench.stages.load_rival", absent)
    summary = Campaign(replace(preset, stages=preset.stages[4:]), tmp_path, 600).run(lambda result: None, here)
    assert summary["stages"][0]["status"] == "skipped" and "not installed" in summary["stages"][0]["sentences"][0]


def test_other_settings_are_measured_anew(preset, tmp_path):
    stage, ran = preset.stage("steps"), []

    def note(stage, folder, limit_s):
        ran.append(stage.name)
        return here(stage, folder, limit_s)

    one = replace(preset, stages=(stage,))
    Campaign(one, tmp_path, 600).run(lambda result: None, note)
    Campaign(one, tmp_path, 600, seed=1).run(lambda result: None, note)
    larger = replace(stage, plan=replace(stage.plan, grid=replace(stage.plan.grid, repeats=2)))
    Campaign(replace(one, stages=(larger,)), tmp_path, 600, seed=1).run(lambda result: None, note)
    assert ran == ["steps"] * 3


def test_a_stage_without_time_is_left_for_the_next_call(preset, tmp_path):
    stages = (replace(preset.stages[0], least_s=1000), replace(preset.stages[2], least_s=0))
    summary = Campaign(replace(preset, stages=stages), tmp_path, 500).run(lambda result: None, here)
    assert [stage["status"] for stage in summary["stages"]] == ["skipped", "done"]
    assert "run the campaign again" in summary["stages"][0]["sentences"][0]
    assert not (tmp_path / "kernels.zip").exists()


SLOW_STAGE = """
import sys, time
from pathlib import Path
from engine.bench.stage_report import StageReport
report = StageReport(Path(sys.argv[3]))
report.add_figures({"half": 1.0})
print("half done", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    report.end("partial", "Its time was up: what is here was measured before.")
"""


def launched_as(monkeypatch, source: str) -> None:
    """Stages run this program instead of theirs, in processes as ever."""
    start = campaigns.subprocess.Popen

    def other(command, **options):
        return start([sys.executable, "-c", source, *command[3:]], **options)

    monkeypatch.setattr(campaigns.subprocess, "Popen", other)


def test_a_stage_beyond_its_time_is_stopped_and_keeps_what_it_has(tmp_path, monkeypatch):
    launched_as(monkeypatch, SLOW_STAGE)
    stage = replace(CPU_SMOKE.stages[0], limit_s=2.0)
    started = time.monotonic()
    summary = Campaign(replace(CPU_SMOKE, stages=(stage,)), tmp_path, 600).run(lambda result: None)
    assert time.monotonic() - started < 30
    assert summary["stages"][0]["status"] == "partial" and summary["figures"]["kernels"] == {"half": 1.0}
    with zipfile.ZipFile(tmp_path / "kernels.zip") as archive:
        assert "half done" in archive.read("log.txt").decode()


def test_a_stage_stopped_before_its_first_word_is_not_left_without_one(preset, tmp_path):
    summary = Campaign(preset, tmp_path, 60).run(lambda result: None, runner=lambda stage, folder, limit_s: "")
    for stage in summary["stages"]:
        assert stage["status"] == "failed"
        assert stage["sentences"] == ["Its time was up before it had anything to report."]


def test_a_process_that_dies_leaves_its_last_words(tmp_path, monkeypatch):
    launched_as(monkeypatch, "import os; print('out of luck', flush=True); os._exit(7)")
    summary = Campaign(replace(CPU_SMOKE, stages=CPU_SMOKE.stages[:2]), tmp_path, 600).run(lambda result: None)
    assert [stage["status"] for stage in summary["stages"]] == ["failed", "failed"]
    assert summary["stages"][0]["sentences"] == ["Its process ended with code 7; its log ends: out of luck"]


def test_presets_name_their_stages_and_leave_few_files():
    for preset in PRESETS.values():
        names = [stage.name for stage in preset.stages]
        assert len(set(names)) == len(names) <= 7  # and the summary: eight files
        assert json.loads(json.dumps([stage.settings() for stage in preset.stages])) == [
            stage.settings() for stage in preset.stages
        ]
    with pytest.raises(InputError, match="preset 'b300' is not known; known are h200"):
        preset_named("b300")
    with pytest.raises(InputError, match="stage 'all' is not in preset h200; it has kernels"):
        H200.stage("all")
    with pytest.raises(InputError, match="give it some --minutes"):
        Campaign(H200, None, 0)


def test_the_gpu_grids_can_be_run_with_the_settings_they_are_given():
    from engine.core.config import EngineConfig
    from roofline.model_shape import ModelShape

    for name in ("steps-8b", "steps-0.6b"):
        plan = H200.stage(name).plan
        config = EngineConfig(**plan.settings)
        plan.grid.check(config)
        shape = ModelShape.from_catalogue(plan.engine.model)
        assert config.max_model_len <= shape.max_position
        taken = shape.weight_bytes("bf16") + config.num_blocks * 16 * shape.kv_bytes_per_token("bf16")
        assert taken < 0.85 * 141e9  # activations, graphs and the ceilings' buffers need the rest


def bench(*arguments):
    from engine.cli import app

    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_the_commands_around_a_campaign(preset, tmp_path, monkeypatch):
    small = replace(preset, stages=(preset.stage("steps"),))
    monkeypatch.setitem(PRESETS, "tiny", small)
    monkeypatch.setattr(Campaign, "_in_process", lambda self, stage, folder, limit_s: here(stage, folder, limit_s))
    out = tmp_path / "c"
    result = bench("campaign", "--preset", "tiny", "--out", out)
    assert result.exit_code == 0, result.exception
    assert "steps: done" in result.stderr
    assert "The targets are of one H200; this was" in result.stdout
    result = bench("campaign", "--preset", "tiny", "--out", out, "--json")
    assert json.loads(result.stdout)["stages"][0]["kept"] is True
    result = bench("unpack", out, "--out", tmp_path / "traces")
    assert (
        result.exit_code == 0 and read_trace(tmp_path / "traces" / "steps" / "steps").meta["workload"]["kind"] == "grid"
    )
    again = bench("unpack", out / "steps.zip", "--out", tmp_path / "traces")
    assert isinstance(again.exception, InputError) and "is there already" in str(again.exception)
    assert target_figures(json.loads((out / SUMMARY_FILE).read_text())) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the preset asks for")
def test_a_machine_without_a_gpu_is_told_so_once(tmp_path):
    result = bench("campaign", "--out", tmp_path / "c")
    assert isinstance(result.exception, InputError) and "no NVIDIA GPU" in str(result.exception)
    assert not (tmp_path / "c").exists()


def test_what_is_no_bundle_is_refused(tmp_path):
    (tmp_path / "mine.zip").write_text("not a zip")
    assert read_result(tmp_path / "mine.zip") is None and read_result(tmp_path / "none.zip") is None
    assert isinstance(bench("unpack", tmp_path).exception, InputError)
    with pytest.raises(TraceError, match="is no bundle"):
        unpack(tmp_path / "mine.zip", tmp_path / "t")
    with pytest.raises(TraceError, match="holds no bundle"):
        bundles_in(tmp_path / "empty")


def test_a_bundle_writes_nowhere_but_into_its_trace_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name in ("../meta.json", "/etc/meta.json", "a/b/meta.json", "t/evil.sh", "t/meta.json"):
            archive.writestr(name, "{}")
    assert unpack(tmp_path / "b.zip", tmp_path / "out") == [tmp_path / "out" / "t"]
    written = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(written) == ["b.zip", "out/t/meta.json"]
