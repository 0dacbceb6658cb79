"""What is in flight is given up without cancelling it: Ray aborts the driver over a task that ends while it is cancelled."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GIVES_UP = """
from orchestrator.config.schema import RaySection
from orchestrator.execution.ray_pool import map_on_ray
from orchestrator.execution.ray_session import started

def quick(shared, item):
    return item

settings = RaySection()
with started(settings):
    for _ in range(400):
        pieces = map_on_ray(quick, None, range(8), settings)
        next(pieces)
        pieces.close()
print("went on")
"""
"""Gives up pieces that end at this very moment, again and again, in a session that goes on."""


@pytest.mark.slow
def test_pieces_that_end_while_they_are_given_up_abort_nobody(tmp_path: Path) -> None:
    script = tmp_path / "gives_up.py"
    script.write_text(GIVES_UP)
    ended = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (0, "went on\n"), ended.stderr[-2000:]


def test_nothing_is_cancelled() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "orchestrator").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "ray.cancel"
    ]
    assert found == []
