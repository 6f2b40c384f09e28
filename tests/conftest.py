"""Settings of the whole test run: one thread per process, and property tests without a deadline on busy machines."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

# After the thread setting, which must reach numpy's libraries.
from hypothesis import settings

settings.register_profile("here", deadline=None, print_blob=True)
settings.load_profile("here")
