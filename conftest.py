"""Settings of the whole test run."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Worker processes share the cores. OpenMP threads that spin while they wait slow each other
    # down many times over, so each worker gets one; torch reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
