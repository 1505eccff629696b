"""A few passes before the clock starts: memory pools, kernels and caches are as they stay."""

import numpy as np

from engine.core.sampling_params import SamplingParams
from engine.serving.llm import LLM

_DECODES, _DECODE_TOKENS = 4, 4


def warm_up(llm: LLM) -> None:
    """Run prefill chunks up to a full step and a small decode batch, then leave the engine empty."""
    config = llm.config
    room = min(config.max_model_len, config.kv_capacity_tokens) - _DECODE_TOKENS
    longest = max(1, min(config.max_num_batched_tokens, room))
    rng = np.random.default_rng(0)
    lengths = [longest, *[max(1, longest // 8)] * (_DECODES - 1)]
    for length in lengths:
        prompt = rng.integers(0, llm.model.shape.vocab_size, size=length).tolist()
        llm.add(prompt, SamplingParams(max_tokens=min(_DECODE_TOKENS, max(1, room)), ignore_eos=True))
    while llm.has_work:
        llm.step()
