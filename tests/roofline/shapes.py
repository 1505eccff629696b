"""Models of every kind that the arithmetic knows, for tests; sizes from their published configs."""

from roofline.model_parts import MLA, MoE
from roofline.model_shape import ModelShape

LLAMA_8B = ModelShape.from_catalogue("llama-3.1-8b")
LLAMA_70B = ModelShape.from_catalogue("llama-3.1-70b")
SMALL = ModelShape.from_catalogue("smollm2-135m")


def _shape(name: str, layers: int, hidden: int, heads: tuple[int, int, int], vocab: int, **parts) -> ModelShape:
    return ModelShape(
        name, layers, hidden, parts.pop("intermediate", 4 * hidden), *heads, vocab, 131_072, 1e4, 1e-5, False, **parts
    )  # fmt: skip


MIXTRAL = _shape("mixtral-8x7b", 32, 4096, (32, 8, 128), 32_000, moe=MoE(8, 2, 14_336))
QWEN3_30B_A3B = _shape("qwen3-30b-a3b", 48, 2048, (32, 4, 128), 151_936, moe=MoE(128, 8, 768), qk_norm=True)
DEEPSEEK_V2_LITE = _shape(
    "deepseek-v2-lite", 27, 2048, (16, 16, 192), 102_400, intermediate=10_944,
    moe=MoE(64, 6, 1408, shared_intermediate_size=2816, num_dense_layers=1), mla=MLA(512, 128, 64, 128),
)  # fmt: skip
DEEPSEEK_V3 = _shape(
    "deepseek-v3", 61, 7168, (128, 128, 192), 129_280, intermediate=18_432,
    moe=MoE(256, 8, 2048, shared_intermediate_size=2048, num_dense_layers=3), mla=MLA(512, 128, 64, 128, 1536),
)  # fmt: skip
GEMMA = _shape(
    "gemma-like", 42, 3584, (16, 8, 256), 256_000, intermediate=14_336,
    sliding_window=4096, sliding_layers=21, post_norms=True,
)  # fmt: skip
