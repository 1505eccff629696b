"""The parts of the simulated fleet."""
