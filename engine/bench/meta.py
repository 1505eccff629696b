"""Where a measured trace comes from: its `meta.json`."""

import importlib.metadata
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from engine.bench.attainment import ServedModel
from engine.bench.machine import Machine
from engine.core.trace_meta import ENGINE_NAME
from engine.serving.llm import LLM
from roofline.formats import format_name

DISTRIBUTION = "llm-headroom"


def trace_meta(llm: LLM, machine: Machine, seed: int, client: dict[str, Any] | None = None) -> dict[str, Any]:
    """All fields but `workload`; `client` describes who sends, None where nobody does.

    The client runs inside the engine's loop: nothing lies between its clock and the engine's.
    """
    return {
        "schema_version": 1,
        "simulated": False,
        "engine": {"name": ENGINE_NAME, "version": _version(DISTRIBUTION), "commit": _commit()},
        "hardware": machine.as_dict(),
        "software": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "torch": torch.__version__,
            "triton": _version("triton"),
            "cuda": torch.version.cuda,
            "numpy": np.__version__,
            "pandas": pd.__version__,
        },
        "model": {"name": llm.model.shape.name, "shape": asdict(llm.model.shape)},
        "weight_dtype": weight_dtype(llm),
        "kv_dtype": kv_dtype(llm),
        "tensor_parallel": 1,
        "engine_config": llm.config.as_dict(),
        "speculation": None,
        "client": {"max_concurrency": None, "to_engine_s": 0.0, "to_client_s": 0.0, **(client or {})},
        "seed": seed,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def served_model(llm: LLM) -> ServedModel:
    """What a roofline needs to know of the engine."""
    return ServedModel(llm.model.shape, weight_dtype(llm), kv_dtype(llm))


def weight_dtype(llm: LLM) -> str:
    """The number format that weights and activations are in."""
    return _short(llm.model.weights.dtype)


def kv_dtype(llm: LLM) -> str:
    """The number format that keys and values are cached in."""
    return "fp8" if llm.kv_dtype == torch.float8_e4m3fn else _short(llm.kv_dtype)


def _short(dtype: torch.dtype) -> str:
    return format_name(str(dtype).removeprefix("torch."))


def _version(distribution: str) -> str | None:
    """The installed version; None where the project runs from its source folder."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source folder; None outside a git checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
