"""A real LLM engine: paged KV, continuous batching, measured step by step."""
