"""What the engine and the simulator share; it never loads torch."""
