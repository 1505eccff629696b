"""Model, weights, rows, checkpoints on disk."""
