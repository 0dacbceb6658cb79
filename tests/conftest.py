"""For all tests: a cache and signals of their own, and one thread a process."""

from __future__ import annotations

import os
import signal
import tempfile

# What is measured of this machine goes to a folder of the test session, not to the user's cache.
os.environ.setdefault("COUNTERFACTORY_CACHE", tempfile.mkdtemp(prefix="counterfactory-cache-"))
# Tests run side by side, a process a core: threads of one that wait for each other on the core of another cost it tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts the tests in the background has Ctrl-C ignored, and every process of theirs would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
