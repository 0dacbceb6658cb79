"""A driver killed at any moment: the same command goes on, and the finished store is that of an undisturbed sweep."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.resilience.dying import dying_driver


@dataclass(frozen=True)
class Inside:
    """The driver dies by itself as it enters the call of that number."""

    module: str
    method: str
    call: int
    part: str = ""
    """Only calls are counted whose arguments have this in them."""

    def kill(self, counterfactory, small, wait_until):
        script = small.folder.with_name("dying.py")
        script.write_text(dying_driver(self.module, self.method, self.call, self.part))
        return counterfactory.start("run", small.config, "--out", small.folder, script=script)


@dataclass(frozen=True)
class Outside:
    """The driver is killed a random while after something has come about."""

    has_come: Callable[[Any], bool]
    longest: float
    """Seconds."""

    def kill(self, counterfactory, small, wait_until):
        process = counterfactory.start("run", small.config, "--out", small.folder, PAUSE="0.1")
        wait_until(lambda: self.has_come(small), process)
        time.sleep(RANDOM.uniform(0, self.longest))
        os.kill(process.pid, signal.SIGKILL)  # the driver alone: what Ray started must notice by itself
        return process


RANDOM = random.Random(7)
MOMENTS = [
    Outside(lambda sweep: sweep.folder.exists(), 0.2),  # while the store is laid out
    Inside("durable", "os.replace", 3, "/.c."),  # a part of a plan is written
    Inside("ledger", "Ledger.write_plan", 2),  # one design is planned, others are not
    Outside(lambda sweep: sweep.planned(), 2.0),  # while Ray starts
    Inside("ledger", "Ledger.write", 2),  # outputs and checkpoints are written, their record is not
    Inside("durable", "os.replace", 4, "/outputs/"),  # one measure of a pack is written, the other is not
    Outside(lambda sweep: sweep.commits() >= 10, 0.3),
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
def test_killed_again_and_again(counterfactory, ask, small, undisturbed, wait_until, gone, assert_equal_stores):
    for moment in MOMENTS:
        process = moment.kill(counterfactory, small, wait_until)
        _, err = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, err
        gone(process.pid, [""], seconds=10)
    assert 10 <= small.commits() < 17
    result = counterfactory("run", small.config, "--out", small.folder)
    assert result.returncode == 0, result.stderr
    assert_equal_stores(small, undisturbed)
    assert ask("verify", small.folder)[0] == 0
