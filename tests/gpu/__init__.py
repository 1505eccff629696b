"""What only a GPU can show; `python -m pytest tests/gpu` selects these tests."""
