"""The forward pass against transformers' on the same weights."""

from dataclasses import replace

import pytest
import torch

from engine.execution.model import Llama
from engine.execution.weights import load_weights, random_weights, tensor_sizes
from roofline.errors import InputError, ModelError
from roofline.model_parts import RopeScaling
from roofline.model_shape import ModelShape
from tests.engine.execution.passes import logits_of
from tests.engine.models import TINY, MemoryCheckpoint, reference

TOKENS = [(5 * i * i + 3) % TINY.vocab_size for i in range(70)]


@torch.inference_mode()
def reference_logits(model, token_ids):
    return model(torch.tensor([token_ids])).logits[0].float()


VARIANTS = {
    "grouped queries": TINY,
    "one query head a KV head": replace(TINY, num_kv_heads=6),
    "one KV head": replace(TINY, num_kv_heads=1),
    "wide heads": replace(TINY, head_dim=20),
    "own output head": replace(TINY, tie_embeddings=False),
    "biases": replace(TINY, attention_bias=True, attention_output_bias=True),
    "qk norm": replace(TINY, qk_norm=True),
    "linear rope": replace(TINY, rope_scaling=RopeScaling("linear", 4.0)),
    "llama3 rope": replace(TINY, rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0)),
}


@pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS)
def test_logits_of_every_kind_of_layer(shape):
    checkpoint = MemoryCheckpoint(shape)
    expected = reference_logits(reference(checkpoint), TOKENS)
    got = logits_of(Llama(shape, load_weights(checkpoint, torch.float32)), TOKENS)
    # float32 rounds at 6e-8 of values of a few units, in sums of at most 80 terms over 2 layers: 1e-5 was seen.
    torch.testing.assert_close(got, expected, atol=5e-5, rtol=0)


PROMPT = "In 1969 the first people walked on the Moon. Asked what they saw, one of them said: "


@pytest.mark.model
def test_logits_of_the_embedded_model(smollm2, smollm2_checkpoint):
    token_ids = smollm2.text_tokenizer.encode(PROMPT)
    expected = reference_logits(reference(smollm2_checkpoint), token_ids)
    got = logits_of(smollm2.model, token_ids)
    # Two float32 orders of summation over 30 layers of up to 1536 terms: 6e-5 was seen, on logits that spread over 58
    # units. A wrong row order, scale or mask moves them by units.
    torch.testing.assert_close(got, expected, atol=5e-4, rtol=0)


@pytest.mark.model
def test_bf16_is_as_exact_as_the_other_implementation(smollm2, smollm2_checkpoint):
    token_ids = smollm2.text_tokenizer.encode(PROMPT)
    exact = logits_of(smollm2.model, token_ids)
    other = reference_logits(reference(smollm2_checkpoint, torch.bfloat16), token_ids)
    weights = load_weights(smollm2_checkpoint, torch.bfloat16)
    got = logits_of(Llama(smollm2_checkpoint.shape, weights), token_ids)
    # bfloat16 keeps 8 bits, so no fixed tolerance says much; transformers' own bfloat16 error is the yardstick, and
    # rounding in another order may cost a quarter more.
    assert (got - exact).square().mean().sqrt() <= 1.25 * (other - exact).square().mean().sqrt()


def test_random_weights_follow_their_seed():
    once, again, other = (random_weights(TINY, torch.float32, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(once.embedding, again.embedding)
    assert not torch.equal(once.embedding, other.embedding)


def test_tensor_sizes_hold_all_parameters():
    for shape in (TINY, VARIANTS["own output head"], VARIANTS["biases"], VARIANTS["qk norm"]):
        assert sum(torch.Size(size).numel() for size in tensor_sizes(shape).values()) == shape.num_parameters


def test_a_tensor_of_the_wrong_size_is_named():
    checkpoint = MemoryCheckpoint(TINY)
    checkpoint.tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(80, 47)
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight has size \(80, 47\)"):
        load_weights(checkpoint, torch.float32)


def test_a_rope_scaling_that_is_not_implemented_is_refused():
    shape: ModelShape = replace(TINY, rope_scaling=RopeScaling("yarn", 4.0))
    with pytest.raises(ModelError, match="yarn"):
        Llama(shape, load_weights(MemoryCheckpoint(shape), torch.float32))


def test_an_integer_format_cannot_be_computed_in():
    from engine.execution.weights import torch_dtype

    with pytest.raises(InputError, match="int8"):
        torch_dtype("int8")
    assert torch_dtype("bfloat16") is torch.bfloat16
