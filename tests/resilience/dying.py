"""A driver that is killed at a chosen moment of its own work."""

from __future__ import annotations

DIES_INSIDE = """
import os, signal, sys

from orchestrator.store import {module}
from orchestrator.cli.main import main

whole, calls = {module}.{method}, 0

def dying(*arguments, **options):
    global calls
    calls += {part!r} in str(arguments)
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **options)

{module}.{method} = dying
sys.exit(main())
"""


def dying_driver(module: str, method: str, call: int, part: str = "") -> str:
    """Return a script: the command line, killed as it enters the call of that number whose arguments have `part` in them."""
    return DIES_INSIDE.format(module=module, method=method, call=call, part=part)
