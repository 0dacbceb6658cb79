"""For all tests: a cache and signals of their own."""

from __future__ import annotations

import os
import signal
import tempfile

# What is measured of this machine goes to a folder of the test session, not to the user's cache.
os.environ.setdefault("COUNTERFACTORY_CACHE", tempfile.mkdtemp(prefix="counterfactory-cache-"))
# A shell that starts the tests in the background has Ctrl-C ignored, and every process of theirs would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
