"""A fleet of LLM engines under virtual time, and the questions asked of it."""
