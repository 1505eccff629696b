<<<<<<< HEAD
"""What the engine and the simulator share; it never loads torch."""
=======
"""The engine's policy and bookkeeping without torch; the simulator runs the same code."""
>>>>>>> infra
