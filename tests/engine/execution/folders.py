"""Tiny models written to disk as others write them: a Hugging Face folder, a GGUF file."""

import json
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.engine.models import MemoryCheckpoint

CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
CHARACTERS = [*sorted(pre_tokenizers.ByteLevel.alphabet())[:94], "Ġ"]
VOCABULARY = ["<s>", "</s>", *CHARACTERS, "ab", "abc", "Ġa", "cd"]
MERGES = [("a", "b"), ("ab", "c"), ("Ġ", "a"), ("c", "d")]


def config_of(shape) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_norm_eps,
        "tie_word_embeddings": shape.tie_embeddings,
        "eos_token_id": 1,
    }


def tiny_backend() -> Tokenizer:
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(VOCABULARY)}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    return backend


def write_folder(folder: Path, checkpoint: MemoryCheckpoint, num_files: int = 2) -> Path:
    """A Hugging Face folder with its tensors spread over several files."""
    names = list(checkpoint.tensors)
    for index in range(num_files):
        part = {name: checkpoint.tensors[name] for name in names[index::num_files]}
        save_file(part, folder / f"model-{index + 1:05}-of-{num_files:05}.safetensors")
    (folder / "config.json").write_text(json.dumps(config_of(checkpoint.shape)))
    return write_tokenizer(folder)


def write_tokenizer(folder: Path) -> Path:
    """The tokenizer's files of a Hugging Face folder."""
    tiny_backend().save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


def permute(tensor, heads):
    """Hugging Face's row order to llama.cpp's, as llama.cpp's converter does it."""
    rows = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return rows.swapaxes(1, 2).reshape(tensor.shape)


def write_gguf(
    path: Path, checkpoint: MemoryCheckpoint, pre_tokeniser: str = "smollm", architecture: str = "llama"
) -> Path:
    """A GGUF file in float32; llama.cpp permutes rows of the architecture `llama` alone."""
    from gguf import GGUFWriter

    from engine.execution.checkpoint import gguf_name

    shape = checkpoint.shape
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(shape.num_layers)
    writer.add_context_length(shape.max_position)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokeniser)
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3] + [1] * (len(VOCABULARY) - 2))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHAT)
    for name, tensor in checkpoint.tensors.items():
        permuted = {"q_proj": shape.num_heads, "k_proj": shape.num_kv_heads} if architecture == "llama" else {}
        heads = permuted.get(name.split(".")[-2])
        array = tensor.numpy() if heads is None else permute(tensor.numpy(), heads)
        writer.add_tensor(gguf_name(name), array.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
