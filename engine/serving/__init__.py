"""From text to tokens and back: tokenizer and the serving loop."""
