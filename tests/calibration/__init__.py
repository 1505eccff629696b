"""Tests of calibration: known truths found, bad input refused, measured passes predicted."""
