<<<<<<< HEAD
"""A real LLM engine: paged KV, continuous batching, measured step by step."""
=======
"""A real LLM engine: continuous batching, paged KV, measured step by step."""
>>>>>>> infra
