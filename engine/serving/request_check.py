"""What could never run is refused before anything does."""

from collections.abc import Sequence

from engine.core.config import EngineConfig
from engine.core.sampling_params import SamplingParams
from roofline.errors import CapacityError, InputError


def check_request(prompt_ids: Sequence[int], params: SamplingParams, config: EngineConfig, vocab_size: int) -> None:
    """Raise `InputError` for a prompt that is empty, beyond the context or not of the model's tokens.

    Raises `CapacityError` for a request that the KV pool could never hold.
    """
    context = config.max_model_len
    if not len(prompt_ids):
        raise InputError("the prompt is empty; give at least one token.")
    if len(prompt_ids) >= context:
        raise InputError(
            f"the prompt has {len(prompt_ids)} tokens, but the context is {context} and one must be left for the "
            "answer; shorten it or raise max_model_len."
        )
    if not 0 <= min(prompt_ids) <= max(prompt_ids) < vocab_size:
        raise InputError(f"the prompt has token ids outside 0 to {vocab_size - 1}; encode it for this model.")
    if params.stop_token_ids and max(params.stop_token_ids) >= vocab_size:
        raise InputError(f"stop_token_ids has {max(params.stop_token_ids)}; the model's are 0 to {vocab_size - 1}.")
    longest = min(len(prompt_ids) + params.max_tokens, context)
    if longest - 1 + config.num_lookahead_tokens > config.kv_capacity_tokens:
        raise CapacityError(
            f"a request of {len(prompt_ids)} prompt tokens and up to {longest - len(prompt_ids)} output tokens "
            f"does not fit the KV cache of {config.kv_capacity_tokens} tokens ({config.usable_blocks} "
            f"blocks of {config.block_size}); raise num_blocks or the KV memory, or lower max_tokens."
        )
