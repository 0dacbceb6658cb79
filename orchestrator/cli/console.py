"""Where the command line writes."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH = None if sys.stdout.isatty() else 120
out = Console(width=WIDTH)
err = Console(stderr=True)
