"""Settings of the whole test run."""

import os

# Waiting OpenMP threads must sleep, not spin: on a machine that is shared, spinning makes small fits 30 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
