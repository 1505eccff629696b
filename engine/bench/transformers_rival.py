"""The same offline workload on transformers' continuous batching, with the same random prompts and model sizes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.bench.offline import Throughput
from engine.bench.prompts import prompt_token_ids
from engine.core.workload import Workload
from engine.execution.weights import torch_dtype
from roofline.errors import ModelError
from roofline.model_shape import ModelShape

_WAIT_S = 1.0  # for one result, before asking whether its thread still lives
_ARCHITECTURES = {False: ("LlamaConfig", "LlamaForCausalLM"), True: ("Qwen3Config", "Qwen3ForCausalLM")}


@dataclass(frozen=True, slots=True)
class Rival:
    """A transformers model of random weights that stands ready; `version` is the library's."""

    model: Any
    version: str

    def serve(self, workload: Workload, seed: int, temperature: float, num_blocks: int | None = None) -> Throughput:
        """Answer all requests, each with as many tokens as the workload says; graphs are captured before the clock.

        `num_blocks` sizes its cache; without it, it takes what memory there is.
        Raises `RuntimeError` where the library's own thread ends before they are answered.
        """
        from transformers import ContinuousBatchingConfig, GenerationConfig

        table, vocabulary = workload.requests, self.model.config.vocab_size
        prompts = [prompt_token_ids(workload, index, vocabulary, seed).tolist() for index in range(len(workload))]
        outputs = table["output_tokens"].tolist()
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        config = GenerationConfig(max_new_tokens=max(outputs), eos_token_id=-1, pad_token_id=0, **sampling)
        cache = ContinuousBatchingConfig(num_blocks=num_blocks)
        batching = self.model.continuous_batching_context_manager(config, continuous_batching_config=cache)
        with torch.no_grad(), batching as manager:
            _served(manager, prompts[:1], [min(2, outputs[0])])  # the first request pays for what is made lazily
            _synchronize(self.model.device)
            started = time.perf_counter()
            produced = _served(manager, prompts, outputs)
            seconds = time.perf_counter() - started
        return Throughput(sum(map(len, prompts)), produced, seconds)


def load_rival(shape: ModelShape, device: str, dtype: str) -> Rival:
    """Build the model on the device; raises `ModelError` where transformers cannot serve it so."""
    try:
        import transformers
    except ModuleNotFoundError:
        raise ModelError("transformers is not installed, so there is nothing to compare with.") from None
    config_name, model_name = _ARCHITECTURES[shape.qk_norm]
    config = getattr(transformers, config_name)(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position,
        tie_word_embeddings=shape.tie_embeddings,
    )
    with torch.device(device):
        model = getattr(transformers, model_name)._from_config(
            config, dtype=torch_dtype(dtype), attn_implementation="sdpa"
        )
    if not hasattr(model, "continuous_batching_context_manager"):
        raise ModelError(f"transformers {transformers.__version__} has no continuous batching manager; 5.0 has.")
    return Rival(model.eval(), transformers.__version__)


def _served(manager: Any, prompts: Sequence[list[int]], outputs: Sequence[int]) -> int:
    """Send everything at once and wait for the last answer; returns the tokens that came."""
    for prompt, output in zip(prompts, outputs, strict=True):
        manager.add_request(prompt, max_new_tokens=output)
    produced = finished = 0
    while finished < len(prompts):
        result = manager.get_result(timeout=_WAIT_S)
        if result is None:
            if not manager.is_running():
                raise RuntimeError("transformers' continuous batching stopped before all requests were answered.")
            continue
        if result.is_finished():
            if result.error is not None:
                raise RuntimeError(f"transformers' continuous batching failed on a request: {result.error}")
            finished += 1
            produced += len(result.generated_tokens)
    return produced


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
