"""Arithmetic only: what a model weighs, what an accelerator can do, and the step time the two allow."""
