"""A campaign in little: every kind of stage on a model of random weights that is no larger than a test needs."""

import json
from pathlib import Path

from engine.bench.engine_choice import EngineChoice
from engine.bench.grid import Grid
from engine.bench.presets import KernelsPlan, OfflinePlan, Preset, RivalPlan, ServePlan, Stage, StepsPlan
from tests.engine.execution.folders import config_of
from tests.engine.models import TINY

GRID = Grid(
    decode_batches=(1, 2), contexts=(8,), chunks=(4,), histories=(0,), mixed_chunks=(), packs=(), skewed_batches=(),
    repeats=1,
)  # fmt: skip
SETTINGS = {"num_blocks": 64, "block_size": 4, "max_num_seqs": 4, "max_num_batched_tokens": 32, "max_model_len": 128}


def tiny_preset(folder: Path) -> Preset:
    """The preset; a folder without weights, only with the model's description, is made in `folder`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(TINY)))
    engine = EngineChoice(str(folder), device="cpu", dtype="fp32", load_format="dummy")
    plans = {
        "kernels": KernelsPlan("smoke", "cpu", "fp32"),
        "throughput": OfflinePlan(engine, SETTINGS, count=4, longest=8, pressure_blocks=6),
        "steps": StepsPlan(engine, SETTINGS, GRID, "tiny"),
        "serve": ServePlan(engine, SETTINGS, "4", "3", 4, (0.5, 1.5), 0.05, 8),
        "transformers": RivalPlan(str(folder), "cpu", "fp32", count=2, longest=4, num_blocks=4),
    }
    stages = tuple(Stage(name, plan, least_s=10, limit_s=60) for name, plan in plans.items())
    return Preset("tiny", "a tiny model on a CPU", "cpu", stages)
