"""Tokens, texts and ends of requests."""
