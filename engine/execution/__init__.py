"""Torch: the model, its weights, and the execution of the scheduler's batches.

Importing this package before torch sets how waiting OpenMP threads behave: spinning ones make everything on a shared
machine 3 to 7 times slower.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
