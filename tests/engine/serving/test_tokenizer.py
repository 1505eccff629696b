"""The embedded model's tokenizer, built from GGUF metadata, and chat templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models

from engine.execution.checkpoint import open_checkpoint
from engine.serving.tokenizer import Tokenizer, load_tokenizer
from roofline.errors import InputError, ModelError
from tests.engine.execution.folders import write_gguf
from tests.engine.models import TINY, MemoryCheckpoint


@pytest.fixture(scope="module")
def tokenizer(smollm2_checkpoint):
    return load_tokenizer(smollm2_checkpoint)


def templated(template):
    return Tokenizer(Backend(models.BPE({"a": 0}, [])), frozenset(), template, {"bos_token": "<s>"})


TEXTS = [
    "Hello world",
    " It's 1234.5 and we'll see\n\n  indented\tcode(){}  ",
    "Grüße, 世界! 😀",
    "def f(x):\n    return x**2  # done\n",
    "2024-01-31 12:00",
    "",
]


@pytest.fixture(scope="module")
def other(smollm2_checkpoint):
    from transformers import AutoTokenizer

    path = smollm2_checkpoint.path
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.mark.model
@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_are_those_of_transformers(tokenizer, other, text):
    assert tokenizer.encode(text) == other.encode(text, add_special_tokens=False)


@pytest.mark.model
@given(text=st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc"]), max_size=60))
def test_decoding_undoes_encoding(tokenizer, text):
    """The vocabulary has no token for some control characters and for bytes beyond the common planes."""
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.model
def test_digits_stand_alone(tokenizer):
    assert len(tokenizer.encode("123456")) == 6
    assert tokenizer.encode("1") == [33]
    assert tokenizer.encode(" ½") == tokenizer.encode(" ") + tokenizer.encode("½")


@pytest.mark.model
def test_special_tokens_are_recognised_and_not_shown(tokenizer):
    assert tokenizer.encode("<|im_start|>user\n<|im_end|>") == [1, 4093, 198, 2]
    assert tokenizer.decode([1, 4093, 198, 2]) == "user\n"
    assert tokenizer.end_ids == {2} and tokenizer.vocab_size == 49152


@pytest.mark.model
def test_chat_is_chatml_with_the_models_own_system_prompt(tokenizer):
    expected = (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.chat([{"role": "user", "content": "Hi"}]) == tokenizer.encode(expected)


@pytest.mark.model
def test_a_system_prompt_of_ones_own_replaces_it(tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.chat(messages) == tokenizer.encode(expected)


def test_a_template_cannot_reach_out():
    with pytest.raises(InputError, match="chat template refuses"):
        templated("{{ ''.__class__.__mro__[1].__subclasses__() }}").chat([])


def test_a_template_may_refuse_messages():
    with pytest.raises(InputError, match="chat template refuses the messages: no turns"):
        templated("{{ raise_exception('no turns') }}").chat([])


def test_a_model_without_a_template_takes_raw_prompts_only():
    with pytest.raises(InputError, match="no chat template; give a raw prompt"):
        templated(None).chat([{"role": "user", "content": "a"}])


def test_an_unknown_pre_tokeniser_is_named(tmp_path):
    path = write_gguf(tmp_path / "odd.gguf", MemoryCheckpoint(TINY), pre_tokeniser="odd-words")
    with pytest.raises(ModelError, match="'odd-words' is not known"):
        load_tokenizer(open_checkpoint(str(path)))
