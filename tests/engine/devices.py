"""The device's runner on a CPU: the same rows, packing, padding and token feed as on a GPU, without graphs."""

import torch

from engine.core.config import EngineConfig
from engine.execution.decode_graphs import graph_batches
from engine.execution.device_runner import DeviceRunner
from engine.execution.device_setup import device_program
from engine.execution.model import Llama
from engine.serving.llm import LLM


def device_engine(model: Llama, *, pads: bool = True, kv_dtype: torch.dtype | None = None, **config) -> LLM:
    """An engine like test_llm_tokens' own, on the device's runner; `pads`: plain decodes run at the graphs' sizes."""
    settings = EngineConfig(**{"num_blocks": 100, "max_model_len": 256, "max_num_seqs": 8} | config)
    program = device_program(model, settings, kv_dtype or model.weights.dtype, settings.num_blocks)
    batches = graph_batches(settings.max_num_seqs) if pads else ()
    return LLM(model, None, settings, runner=DeviceRunner(program, settings, batches))
