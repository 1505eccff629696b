"""The engine's policy and bookkeeping without torch; the simulator runs the same code."""
