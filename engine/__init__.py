"""A real LLM engine: continuous batching, paged KV, measured step by step."""
