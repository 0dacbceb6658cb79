"""Ctrl-C and SIGTERM: what is finished is kept, the command says how to go on and exits 130."""

from __future__ import annotations

import os
import signal
import time

import pytest


@pytest.fixture
def training(counterfactory, small, wait_until):
    """Start the small sweep and return once it trains; the whole process group is what a terminal's Ctrl-C reaches."""

    def start(pause, *more):
        process = counterfactory.start("run", small.config, *more, "--out", small.folder, PAUSE=pause)
        wait_until(lambda: small.commits() >= 2, process)
        return process

    return start


def assert_goes_on(counterfactory, ask, small, undisturbed, assert_equal_stores):
    """What was finished stands, and the same command finishes the rest."""
    done = small.done()
    assert 0 < done < 64
    assert ask("verify", small.folder)[0] == 0
    result = counterfactory("run", small.config, "--out", small.folder)
    assert result.returncode == 0, result.stderr
    assert f"trained {64 - done} runs" in result.stderr
    assert_equal_stores(small, undisturbed)


@pytest.mark.slow
def test_once(counterfactory, ask, training, small, undisturbed, assert_equal_stores):
    process = training("0.2")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert_goes_on(counterfactory, ask, small, undisturbed, assert_equal_stores)


@pytest.fixture
def long_pack(counterfactory, small, wait_until, family):
    """Start the small sweep with packs that take minutes and return while the first ones are trained."""

    def start(*overrides):
        process = counterfactory.start("run", small.config, *overrides, "--out", small.folder, PAUSE="60")
        wait_until(lambda: any("ray::counterfactory.pack" in command for command in family(process.pid)), process)
        return process

    return start


@pytest.mark.slow
def test_twice_does_not_wait(long_pack, small, family):
    process = long_pack()
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=25)  # patience is 30 s
    assert process.returncode == 130, err
    assert "64 runs to go" in err
    assert "Traceback" not in err
    assert not [command for command in family(process.pid) if "counterfactory.pack" in command]


@pytest.mark.slow
def test_patience_ends(long_pack):
    process = long_pack("ray.patience=1")
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=25)
    assert process.returncode == 130, err
    assert "the same command goes on from here" in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_training(counterfactory, small, wait_until, number):
    process = counterfactory.start("run", small.config, "--out", small.folder)
    wait_until(small.folder.exists, process)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
