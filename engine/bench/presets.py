"""Sizes of campaigns: one for a large GPU with real shapes and random weights, one that any CPU runs in a minute.

A plan is data: it is what a stage is given, what its result says was asked, and what a resumed campaign compares.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.bench.engine_choice import EngineChoice
from engine.bench.grid import Grid
from engine.core.config import EngineConfig
from roofline.errors import InputError

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KernelsPlan:
    """Ceilings of the machine and the kernel table; `suite` is one of kernel_cases.SUITES."""

    suite: str
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class OfflinePlan:
    """The mixed workload of `count` requests of up to `longest` tokens, all at once.

    Then once more with only `pressure_blocks` of KV cache, so that requests are preempted; None: not.
    """

    engine: EngineChoice
    settings: Settings
    count: int = 256
    longest: int = 1024
    temperature: float = 0.6
    pressure_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class StepsPlan:
    """A grid of batch compositions; `label` names the model in the figures."""

    engine: EngineChoice
    settings: Settings
    grid: Grid
    label: str


@dataclass(frozen=True, slots=True)
class ServePlan:
    """A burst that finds the engine's capacity, then `load_s` seconds at each of `loads`, its fractions.

    Loads above 1 are past the knee. Then the burst again with only `pressure_blocks` of KV cache; None: not.
    """

    engine: EngineChoice
    settings: Settings
    input_len: str
    output_len: str
    burst: int
    loads: tuple[float, ...]
    load_s: float
    pressure_blocks: int | None


@dataclass(frozen=True, slots=True)
class RivalPlan:
    """The mixed workload on transformers' continuous batching, with the sizes of a model.

    `num_blocks` of 256 tokens for its cache; None: what memory there is.
    """

    model: str
    device: str
    dtype: str
    count: int = 256
    longest: int = 1024
    temperature: float = 0.6
    num_blocks: int | None = None


Plan = KernelsPlan | OfflinePlan | StepsPlan | ServePlan | RivalPlan


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a campaign: it may take `limit_s` and is not begun with less than `least_s` left."""

    name: str
    plan: Plan
    least_s: float
    limit_s: float

    def settings(self) -> dict[str, Any]:
        """What a result of it must have been asked for to count; JSON has no tuples."""
        return {"kind": type(self.plan).__name__, **_plain(asdict(self.plan))}


@dataclass(frozen=True, slots=True)
class Preset:
    """Stages in the order of their value."""

    name: str
    what: str
    device: str
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        """The stage of that name; InputError with the names there are."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise InputError(
            f"stage {name!r} is not in preset {self.name}; it has {', '.join(stage.name for stage in self.stages)}."
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


_CUDA = {"device": "cuda", "dtype": "bf16", "load_format": "dummy"}
_LARGE, _SMALL = (EngineChoice(model, **_CUDA) for model in ("llama-3.1-8b", "qwen3-0.6b"))
# 400k tokens of an 8B model's cache are 52 GB: room for weights, activations and a second engine beside them.
_LARGE_BLOCKS = 400_000 // 16
_GPU_GRID = Grid(
    decode_batches=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    contexts=(128, 1024, 4096, 16384),
    chunks=(64, 256, 512, 1024, 2048, 4096, 8192),
    histories=(0, 1024, 4096, 16384),
    mixed_chunks=(256, 2048),
    packs=(4, 16),
    skewed_batches=(16, 64),
    repeats=5,
    max_decode_tokens=400_000,
)
_BUDGET = 8192


def _grid_settings(grid: Grid, budget: int, block_size: int = EngineConfig(2).block_size) -> dict[str, Any]:
    """An engine just large enough for a grid, that decides each step after the one before: nothing is hidden."""
    return {
        "num_blocks": grid.num_blocks(block_size, budget),
        "max_num_seqs": grid.most_sequences,
        "max_num_batched_tokens": budget,
        "max_model_len": -(-grid.longest_tokens(budget) // 1024) * 1024,
        "async_scheduling": False,
    }


H200 = Preset(
    name="h200",
    what="Llama-3.1-8B and Qwen3-0.6B shapes, random weights, bf16, on one GPU of 120 GB or more",
    device="cuda",
    stages=(
        Stage("kernels", KernelsPlan("h200", "cuda", "bf16"), least_s=30, limit_s=100),
        Stage(
            "throughput-0.6b",
            OfflinePlan(
                _SMALL,
                {"max_num_seqs": 256, "max_num_batched_tokens": 16384, "max_model_len": 4096, "async_scheduling": True},
                pressure_blocks=80_000 // 16,
            ),
            least_s=30,
            limit_s=80,
        ),
        Stage(
            "steps-8b",
            StepsPlan(_LARGE, _grid_settings(_GPU_GRID, _BUDGET), _GPU_GRID, "8b"),
            least_s=40,
            limit_s=120,
        ),
        Stage(
            "serve-8b",
            ServePlan(
                _LARGE,
                {
                    "max_num_seqs": 256,
                    "max_num_batched_tokens": _BUDGET,
                    "max_model_len": 8192,
                    "num_blocks": _LARGE_BLOCKS,
                    "async_scheduling": True,
                },
                input_len="lognormal:512:0.8:4096",
                output_len="lognormal:256:0.8:2048",
                burst=400,
                loads=(0.9, 0.5, 1.3, 0.25),
                load_s=12.0,
                pressure_blocks=100_000 // 16,
            ),
            least_s=45,
            limit_s=150,
        ),
        Stage(
            "steps-0.6b",
            StepsPlan(_SMALL, _grid_settings(_GPU_GRID, _BUDGET), _GPU_GRID, "0.6b"),
            least_s=30,
            limit_s=80,
        ),
        Stage("transformers-0.6b", RivalPlan("qwen3-0.6b", "cuda", "bf16"), least_s=30, limit_s=80),
    ),
)

_CPU = EngineChoice("smollm2-135m", device="cpu", dtype="fp32")
_CPU_GRID = Grid(
    decode_batches=(1, 2), contexts=(16, 32), chunks=(8, 16), histories=(0, 16), mixed_chunks=(8,), packs=(2,),
    skewed_batches=(2,), repeats=1,
)  # fmt: skip
_CPU_SETTINGS = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "max_model_len": 256, "num_blocks": 64}

CPU_SMOKE = Preset(
    name="cpu-smoke",
    what="SmolLM2-135M on a CPU, at sizes that say nothing of speed: does everything run?",
    device="cpu",
    stages=(
        Stage("kernels", KernelsPlan("smoke", "cpu", "fp32"), least_s=0, limit_s=120),
        Stage(
            "throughput",
            OfflinePlan(_CPU, _CPU_SETTINGS, count=4, longest=16, pressure_blocks=5),
            least_s=0,
            limit_s=120,
        ),
        Stage("steps", StepsPlan(_CPU, _grid_settings(_CPU_GRID, 64), _CPU_GRID, "smollm2"), least_s=0, limit_s=120),
        Stage(
            "serve",
            ServePlan(_CPU, _CPU_SETTINGS, "uniform:8:24", "uniform:4:12", 6, (0.5, 1.5), 1.0, None),
            least_s=0,
            limit_s=120,
        ),
        Stage(
            "transformers",
            RivalPlan("smollm2-135m", "cpu", "fp32", count=2, longest=8, num_blocks=8),
            least_s=0,
            limit_s=120,
        ),
    ),
)

PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in (H200, CPU_SMOKE)}


def preset_named(name: str) -> Preset:
    """The preset of that name; InputError with the names there are."""
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is not known; known are {', '.join(PRESETS)}.")
    return PRESETS[name]
