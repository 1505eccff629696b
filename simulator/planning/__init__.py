"""Questions put to the simulator: capacity, plan, cost."""
