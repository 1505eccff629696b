"""From a model's name and the user's settings to everything an engine is made of."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch

from engine.core.config import EngineConfig
from engine.execution.checkpoint import DummyCheckpoint, FolderCheckpoint, GgufCheckpoint, open_checkpoint
from engine.execution.device import choose_device, defaults_of
from engine.execution.device_setup import DeviceOptions, gpu_runner
from engine.execution.kv_cache import blocks_within, check_memory
from engine.execution.kv_pool import check_utilization, out_of_memory_means
from engine.execution.model import Llama
from engine.execution.runner import Runner
from engine.execution.step import Executor
from engine.execution.weights import load_weights, random_weights, torch_dtype
from engine.serving.tokenizer import Tokenizer, load_tokenizer
from roofline.errors import InputError
from roofline.formats import format_name

AnyCheckpoint = GgufCheckpoint | FolderCheckpoint | DummyCheckpoint
LoadFormat = Literal["auto", "safetensors", "gguf", "dummy"]

DEFAULT_KV_MEMORY_BYTES = 1 << 30  # on a CPU
MAX_THREADS = 1024  # torch starts as many as it is told, until the process dies of it


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What is loaded, and onto what; None and `auto` leave it to the device.

    `load_format` dummy takes random weights of a model that is named by its catalogue name, folder or file, and no
    tokenizer. `kv_cache_dtype` fp8 is e4m3, on a GPU. A GPU's KV pool fills `gpu_memory_utilization` of its memory, a
    CPU's takes `kv_memory_bytes`; `num_blocks` overrides both. `enforce_eager` runs a GPU without captured graphs.
    `seed` feeds the seeds of requests that bring none, and random weights.
    """

    load_format: LoadFormat = "auto"
    dtype: str | None = None
    device: str = "auto"
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: float = 0.9
    kv_memory_bytes: int | None = None
    enforce_eager: bool = False
    num_threads: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What an engine is made of."""

    model: Llama
    tokenizer: Tokenizer | None
    config: EngineConfig
    runner: Executor
    seed: int


def load_parts(model: str, settings: Mapping[str, Any]) -> EngineParts:
    """Load a model by name or path; `settings` are fields of `LoadOptions` and `EngineConfig`.

    Raises `ModelError`, `CapacityError` or `InputError`.
    """
    options, wanted = split_settings(settings)
    _set_threads(options.num_threads)
    check_utilization(options.gpu_memory_utilization)
    device = choose_device(options.device)
    suited = defaults_of(device)
    suited_dtype = suited.pop("dtype")
    dtype = torch_dtype(options.dtype or suited_dtype)
    kv_dtype = kv_torch_dtype(options.kv_cache_dtype, dtype, device)
    checkpoint = open_checkpoint(model, options.load_format)
    wanted = {**suited, "max_model_len": checkpoint.shape.max_position, **wanted}
    if device.type == "cpu":
        config = _cpu_config(checkpoint, wanted, options, dtype)
        llama = _load_model(checkpoint, dtype, device, options.seed)
        return EngineParts(llama, load_tokenizer(checkpoint), config, Runner(llama, config), options.seed)
    num_blocks = wanted.pop("num_blocks", None)
    config = EngineConfig(num_blocks=num_blocks or 2, **wanted)  # the pool is sized once the weights are in place
    llama = _load_model(checkpoint, dtype, device, options.seed)
    on_gpu = DeviceOptions(kv_dtype, options.gpu_memory_utilization, num_blocks, not options.enforce_eager)
    config, runner = gpu_runner(llama, config, on_gpu)
    gc.collect()
    gc.freeze()  # a collection that walks model and graphs would stall a step
    return EngineParts(llama, load_tokenizer(checkpoint), config, runner, options.seed)


def split_settings(settings: Mapping[str, Any]) -> tuple[LoadOptions, dict[str, Any]]:
    """The options of loading, and the rest as `EngineConfig` settings; `InputError` for a name of neither."""
    of_loading, of_engine = ({field.name for field in fields(kind)} for kind in (LoadOptions, EngineConfig))
    if unknown := settings.keys() - of_loading - of_engine:
        known = ", ".join(sorted(of_loading | of_engine))
        raise InputError(f"engine setting {sorted(unknown)[0]!r} is not known; known are {known}.")
    options = LoadOptions(**{name: value for name, value in settings.items() if name in of_loading})
    return options, {name: value for name, value in settings.items() if name in of_engine}


def kv_torch_dtype(name: str, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The KV cache's number format: `auto` is the weights', `fp8` is e4m3 and needs a GPU.

    Raises `InputError` for another one.
    """
    if name == "auto" or (format_name(name) != "fp8" and torch_dtype(name) == dtype):
        return dtype
    if format_name(name) != "fp8":
        raise InputError(f"kv_cache_dtype is {name!r}; use auto, which is the weights' format, or fp8.")
    if device.type == "cpu":
        raise InputError("kv_cache_dtype fp8 needs a GPU; on a CPU the KV cache has the weights' format, auto.")
    return torch.float8_e4m3fn


def _load_model(checkpoint: AnyCheckpoint, dtype: torch.dtype, device: torch.device, seed: int) -> Llama:
    shape = checkpoint.shape
    size = f"the weights of {shape.name}, {shape.num_parameters * dtype.itemsize / 1e9:.1f} GB in {_short(dtype)}"
    with out_of_memory_means(size, "use a smaller model or dtype, or a larger GPU"):
        if isinstance(checkpoint, DummyCheckpoint):
            return Llama(shape, random_weights(shape, dtype, device, seed))
        return Llama(shape, load_weights(checkpoint, dtype, device))


def _cpu_config(
    checkpoint: AnyCheckpoint, wanted: dict[str, Any], options: LoadOptions, dtype: torch.dtype
) -> EngineConfig:
    if "num_blocks" not in wanted:
        block_size = wanted.get("block_size", EngineConfig.__dataclass_fields__["block_size"].default)
        budget = DEFAULT_KV_MEMORY_BYTES if options.kv_memory_bytes is None else options.kv_memory_bytes
        wanted = {**wanted, "num_blocks": blocks_within(budget, checkpoint.shape, block_size, dtype)}
    config = EngineConfig(**wanted)
    check_memory(config.num_blocks, checkpoint.shape, config.block_size, dtype)
    return config


def _set_threads(num_threads: int | None) -> None:
    if num_threads is None:
        return
    if not 1 <= num_threads <= MAX_THREADS:
        raise InputError(f"threads is {num_threads}; it must be from 1 to {MAX_THREADS}.")
    torch.set_num_threads(num_threads)


def _short(dtype: torch.dtype) -> str:
    return format_name(str(dtype).removeprefix("torch."))
