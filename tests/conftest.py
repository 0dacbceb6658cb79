"""For all tests: what is measured of this machine goes to a folder of the test session, not to the user's cache."""

from __future__ import annotations

import os
import tempfile

os.environ.setdefault("COUNTERFACTORY_CACHE", tempfile.mkdtemp(prefix="counterfactory-cache-"))
