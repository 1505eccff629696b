"""From text to text: tokenizer, the engine's loop, and what serves it."""

import engine.execution  # noqa: F401  (sets the OpenMP policy before any module here imports torch)
