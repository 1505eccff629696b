"""Sizing on top of simulation: load curves, capacity, plans, cost."""
