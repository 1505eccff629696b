"""A fleet under virtual time, and what is asked of it."""
