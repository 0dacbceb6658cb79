"""A missing browser skips its test, and fails it where one is required: in CI, that is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ONE = "tests/orchestrator/report/test_browser.py::test_it_loads_without_a_console_error_or_a_missing_image"


@pytest.mark.parametrize(("required", "code", "said"), [("", 0, "2 skipped"), ("required", 1, "no Chromium on PATH")])
def test_without_a_browser(tmp_path: Path, required: str, code: int, said: str) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "COUNTERFACTORY_BROWSER": required, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", ONE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout


def test_ci_requires_one() -> None:
    assert "export COUNTERFACTORY_BROWSER=required\n" in (ROOT / ".ci" / "run").read_text()
