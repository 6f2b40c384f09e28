"""Settings of the whole test run: one thread per process, and property tests without a deadline on busy machines."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
# As the command line sets them: half the compile time, same speed.
os.environ.setdefault("NUMBA_LOOP_VECTORIZE", "0")
os.environ.setdefault("NUMBA_SLP_VECTORIZE", "0")
os.environ.setdefault("NUMBA_OPT", "2")

# After the thread setting, which must reach numpy's libraries.
from hypothesis import settings

settings.register_profile("here", deadline=None, print_blob=True)
settings.load_profile("here")
