"""From text to text: tokenizer, the engine loop, the HTTP server."""
