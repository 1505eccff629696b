"""Measurements in, a trustworthy step-time model out."""
