"""Models that several of the engine's tests share; each is built once."""

import pytest

from tests.engine.models import TINY, MemoryCheckpoint, reference, tiny_model


@pytest.fixture(scope="session")
def tiny():
    return tiny_model()


@pytest.fixture(scope="session")
def tiny_reference():
    return reference(MemoryCheckpoint(TINY))


@pytest.fixture(scope="session")
def smollm2_checkpoint():
    from engine.execution.checkpoint import EMBEDDED_MODEL, open_checkpoint

    return open_checkpoint(EMBEDDED_MODEL)


@pytest.fixture(scope="session")
def smollm2(smollm2_checkpoint):
    """The embedded model as an engine of 100 blocks."""
    import torch

    from engine.core.config import EngineConfig
    from engine.execution.model import Llama
    from engine.execution.weights import load_weights
    from engine.serving.llm import LLM
    from engine.serving.tokenizer import load_tokenizer

    model = Llama(smollm2_checkpoint.shape, load_weights(smollm2_checkpoint, torch.float32))
    config = EngineConfig(num_blocks=100, max_num_seqs=16, max_num_batched_tokens=256)
    return LLM(model, load_tokenizer(smollm2_checkpoint), config)
