"""A driver killed at any moment: the same command goes on, and the finished store is that of an undisturbed sweep."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

DIES_INSIDE = """
import os, signal, sys

from orchestrator import {module}
from orchestrator.cli import main

whole, calls = {module}.{method}, 0

def dying(*arguments, **options):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **options)

{module}.{method} = dying
sys.exit(main())
"""
"""A driver that is killed as it enters a chosen call of a chosen method."""

INSIDE = [
    ("design_runs", "DesignRuns.write_plan", 5),  # half of the plan written
    ("ledger", "Ledger.write_plan", 2),  # one design planned, the others not
    ("ledger", "Ledger.write", 4),  # outputs and checkpoints written, their record not
    ("arrays", "RunArray.write", 6),  # one measure of a pack written, the other not
]


@pytest.fixture
def moments(small, wait_until):
    """Ways to wait for a moment of a sweep that is being run, each with a seeded random delay after it."""
    random = np.random.default_rng(7)

    def await_moment(condition, longest):
        delay = float(random.uniform(0, longest))

        def wait(process):
            wait_until(condition, process)
            time.sleep(delay)

        return wait

    return [
        await_moment(small.folder.exists, 0.2),  # while the store is laid out
        await_moment(small.planned, 2.0),  # while Ray starts
        await_moment(lambda: small.commits() >= 2, 0.3),
        await_moment(lambda: small.commits() >= 9, 0.3),
    ]


@pytest.fixture
def gone(family):
    """Assert that of a session no process with one of these words in its command is left after some seconds."""

    def check(session, words, seconds):
        deadline = time.monotonic() + seconds
        while left := [one for one in family(session) if any(word in one for word in words)]:
            assert time.monotonic() < deadline, f"outlive their driver: {left}"
            time.sleep(0.05)

    return check


@pytest.mark.slow
def test_killed_at_random_moments(counterfactory, small, undisturbed, moments, gone, assert_equal_stores):
    killed = []
    for wait in moments:
        process = counterfactory.start("run", small.config, "--out", small.folder, PAUSE="0.1")
        wait(process)
        os.kill(process.pid, signal.SIGKILL)  # the driver alone: what Ray started must notice by itself
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        gone(process.pid, ["raylet/raylet", "gcs/gcs_server", "counterfactory.pack"], seconds=10)
        killed.append(process.pid)
    assert 9 <= small.commits() < 17
    result = counterfactory("run", small.config, "--out", small.folder)
    assert result.returncode == 0, result.stderr
    assert_equal_stores(small, undisturbed)
    assert counterfactory("verify", small.folder).returncode == 0
    for session in killed:
        gone(session, [""], seconds=90)  # Ray's idle agents look for their dead cluster for a minute


@pytest.mark.slow
def test_killed_inside_the_store(counterfactory, small, undisturbed, tmp_path, assert_equal_stores):
    for module, method, call in INSIDE:
        script: Path = tmp_path / "dying.py"
        script.write_text(DIES_INSIDE.format(module=module, method=method, call=call))
        killed = counterfactory("run", small.config, "--out", small.folder, script=script)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < small.commits() < 17
    result = counterfactory("run", small.config, "--out", small.folder)
    assert result.returncode == 0, result.stderr
    assert_equal_stores(small, undisturbed)
    assert counterfactory("verify", small.folder).returncode == 0
