"""Text to tokens and back, and the chat format, of a checkpoint on disk."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from engine.execution.checkpoint import DummyCheckpoint, FolderCheckpoint, GgufCheckpoint, read_json
from engine.serving.detokenizer import Detokenizer
from roofline.errors import InputError, ModelError

Message = Mapping[str, str]

_GGUF_CONTROL_TOKEN = 3  # llama.cpp's token_type for tokens that mean something and are not text
# What is split before merging, by llama.cpp's name of the pre-tokeniser. Digits stand alone in smollm's.
_SPLITS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "smollm": [pre_tokenizers.Digits(individual_digits=True)],
    "gpt-2": [],
    "default": [],
}


class Tokenizer:
    """A tokenizer with its end tokens and its chat template (None where the model has none)."""

    def __init__(
        self, backend: Backend, end_ids: frozenset[int], chat_template: str | None, special: Mapping[str, str]
    ) -> None:
        self.end_ids = end_ids
        self._backend = backend
        self._template = None if chat_template is None else _environment().from_string(chat_template)
        self._special = special  # bos_token, eos_token as text, which templates ask for

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        return self._backend.get_vocab_size()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text; special tokens written in it are recognised."""
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        return self._backend.decode(list(token_ids), skip_special_tokens=True)

    def detokenizer(self, stop: Sequence[str] = ()) -> Detokenizer:
        """Text of one request as its tokens come."""
        return Detokenizer(self.decode, stop)

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn.

        Each message has `role` and `content`. Raises `InputError` where the model has no chat format or refuses these
        messages.
        """
        if self._template is None:
            raise InputError("the model has no chat template; give a raw prompt instead.")
        try:
            text = self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except TemplateError as error:
            raise InputError(f"the model's chat template refuses the messages: {error}") from error
        return self.encode(text, add_special_tokens=False)


def load_tokenizer(checkpoint: GgufCheckpoint | FolderCheckpoint | DummyCheckpoint) -> Tokenizer | None:
    """The tokenizer of a checkpoint, None for random weights.

    Raises `ModelError` where it is missing or of an unknown kind.
    """
    if isinstance(checkpoint, DummyCheckpoint):
        return None
    return _from_gguf(checkpoint) if isinstance(checkpoint, GgufCheckpoint) else _from_folder(checkpoint.path)


def _from_gguf(checkpoint: GgufCheckpoint) -> Tokenizer:
    own = {key.removeprefix("tokenizer.ggml."): value for key, value in checkpoint.metadata.items()}
    kind, split = own.get("model"), own.get("pre", "default")
    if kind != "gpt2" or split not in _SPLITS:
        raise ModelError(
            f"{checkpoint.path}: tokenizer {kind!r} with pre-tokeniser {split!r} is not known; known is gpt2 with "
            f"{', '.join(_SPLITS)}. Use the model's Hugging Face folder with its tokenizer.json."
        )
    if missing := {"tokens", "token_type", "merges"} - own.keys():
        raise ModelError(f"{checkpoint.path} has no tokenizer.ggml.{min(missing)}; it is cut short, download it again.")
    tokens = own["tokens"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Backend(models.BPE(vocabulary, [_pair(merge) for merge in own["merges"]]))
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)  # GPT-2's split into words, bytes as characters
    backend.pre_tokenizer = pre_tokenizers.Sequence([*_SPLITS[split], words])
    backend.decoder = decoders.ByteLevel()
    types = zip(tokens, own["token_type"], strict=True)
    control = [token for token, kind in types if kind == _GGUF_CONTROL_TOKEN]
    backend.add_special_tokens([AddedToken(token, special=True) for token in control])
    ends = frozenset(own[key] for key in ("eos_token_id", "eot_token_id") if key in own)
    special = {f"{name}_token": tokens[own[f"{name}_token_id"]] for name in ("bos", "eos") if f"{name}_token_id" in own}
    return Tokenizer(backend, ends, checkpoint.metadata.get("tokenizer.chat_template"), special)


def _pair(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ")
    return left, right


def _from_folder(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{path} does not exist; a model folder needs its tokenizer.json.")
    read_json(path)  # the library's own error for a broken file is a bare Exception
    backend = Backend.from_file(str(path))
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    special = {name: text for name in ("bos_token", "eos_token") if (text := _token_text(config.get(name)))}
    ends = _end_ids(folder)
    if not ends and "eos_token" in special:
        ends = {backend.token_to_id(special["eos_token"])}
    template_file = folder / "chat_template.jinja"
    template = template_file.read_text(encoding="utf-8") if template_file.is_file() else config.get("chat_template")
    return Tokenizer(backend, frozenset(ends), template, special)


def _token_text(entry: Any) -> str | None:
    """A special token as tokenizer_config.json has it: a string, or an object with its content."""
    return entry.get("content") if isinstance(entry, Mapping) else entry


def _end_ids(folder: Path) -> set[int]:
    """eos_token_id, one or several, of generation_config.json, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        found = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        if found is not None:
            return set(found) if isinstance(found, list) else {found}
    return set()


def _environment() -> ImmutableSandboxedEnvironment:
    """Templates come with the model, from strangers: they run where they can reach nothing."""

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    return environment
