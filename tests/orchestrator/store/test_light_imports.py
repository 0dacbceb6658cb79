"""Whoever only looks at a sweep does not wait for the libraries that train."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "ray", "numba", "scipy.stats", "sklearn")
LIGHT = ("run_store", "attributions", "accounting", "verification", "lease", "durable", "checkpoints")


@pytest.mark.parametrize("name", LIGHT)
def test_the_store_is_imported_without_what_trains(name: str) -> None:
    program = f"import sys, orchestrator.store.{name}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
