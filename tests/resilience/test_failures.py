"""Runs that fail are recorded alone, with their reason; their neighbours are trained, and the rest of the chain goes on."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

from orchestrator.designs.keys import seed_of
from orchestrator.store.attributions import read_attribution
from orchestrator.store.ledger import DONE, FAILED
from orchestrator.store.paths import SweepPaths

TASK = '''"""A black box that fails in the ways its faults say, by seed."""

import json
import os
import signal
import time

import numpy as np

FAULTS = json.loads(os.environ.get("FAULTS", "{}"))
BROKEN = True


class Picky:
    n, t, measures = 12, 3, ("value",)

    def train(self, subset, seed):
        fault = FAULTS.get(str(seed), FAULTS.get("all"))
        if fault == "exit":
            os._exit(3)
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "memory":
            raise MemoryError("no room for it")
        if fault == "rest":
            time.sleep(60)
        if fault == "raise":
            raise RuntimeError("never works")
        if BROKEN and {3, 7} <= set(subset.tolist()):
            look_at_both(subset)
        return subset.mean() + 0.01 * np.random.default_rng(seed).normal()

    def measure(self, model):
        return {"value": model * np.arange(1, 4)}


def look_at_both(subset):
    raise ValueError(f"3 and 7 do not go together, in a subset of {len(subset)}")
'''
SECTIONS = {
    "task": {"name": "task.py:Picky"},
    "measures": ["value"],
    "pack": 2,
    "designs": {
        "fit": {"kind": "subsets", "subsets": 60},
        "heldout": {"kind": "subsets", "subsets": 8, "seeds": 2, "purpose": "score"},
    },
    "estimators": {"difference_in_means": {}},
}
ABORTS = """
import os, sys

from orchestrator.cli.main import main
from orchestrator.execution.scheduler import Scheduler

Scheduler._give_up = lambda self: os.abort()
sys.exit(main())
"""
"""A driver that aborts, as Ray can abort it, when it gives up a sweep whose every run fails."""
DEADLY = {5: "exit", 10: "kill", 14: "memory"}
"""Rows of `fit` whose trainings end more than themselves."""


@pytest.fixture
def picky(counterfactory, make_sweep):
    """A sweep in which runs raise, and some end their worker or its memory; and the command's answer."""
    sweep = make_sweep(task=TASK, sections=SECTIONS)
    faults = {str(seed_of(0, "fit", row, 0)): fault for row, fault in DEADLY.items()}
    result = counterfactory("run", sweep.config, "ray.retries=0", "--out", sweep.folder, FAULTS=json.dumps(faults))
    return sweep, result


@pytest.mark.slow
def test_failures_are_isolated_told_and_retried(counterfactory, ask, ask_json, picky):
    sweep, result = picky
    with sweep.store() as store:
        at_fault = {name: store.masks(name)[:, [3, 7]].all(axis=1) for name in store.designs}
        at_fault["fit"][list(DEADLY)] = True
        kept = store.outputs("fit", "value")
        for name, wrong in at_fault.items():
            np.testing.assert_array_equal(store.states(name), np.where(wrong, FAILED, DONE))
        failures = {one.row: one for one in store.failures("fit")}
    failed = int(sum(wrong.sum() for wrong in at_fault.values()))
    died, killed, memory = (failures.pop(row) for row in DEADLY)
    assert died.message.startswith("its worker died, alone")
    assert killed.message.startswith("its worker died, alone")
    assert memory.message.endswith("no room for it")
    assert "MemoryError: no room for it" in memory.traceback
    assert "in train\n" in memory.traceback
    assert failures
    assert all(one.kind == "ValueError" and "in look_at_both\n" in one.traceback for one in failures.values())

    assert result.returncode == 1  # everything was done that can be, and not everything could
    assert f"{failed} runs failed" in result.stderr
    assert f"{76 - failed} of 76 are done" in result.stderr
    done = int((~at_fault["fit"]).sum())
    assert f"attributed difference_in_means (from {done} models" in result.stderr
    assert read_attribution(SweepPaths(sweep.folder), "difference_in_means").attributes.models == done
    assert (sweep.folder / "report.html").is_file()

    _, status = ask_json("status", sweep.folder)
    assert (status["failed"], status["done"], status["pending"]) == (failed, 76 - failed, 0)
    line = "fit: ValueError: 3 and 7 do not go together, in a subset of 6"
    assert f"{line} ({len(failures)} times)" in status["failures"]
    assert line in ask("status", sweep.folder)[1]

    again = counterfactory("run", sweep.config, "--out", sweep.folder)
    assert again.returncode == 1
    assert "runs to train" not in again.stderr  # a failure is not tried again unasked

    (sweep.config.parent / "task.py").write_text(TASK.replace("BROKEN = True", "BROKEN = False"))
    refused = counterfactory("run", sweep.config, "--retry-failed", "--out", sweep.folder)
    assert refused.returncode == 2  # finished runs would be mixed with those of another source
    assert "source task.py" in refused.stderr
    retried = counterfactory("run", sweep.config, "--retry-failed", "--accept-changes", "--out", sweep.folder)
    assert retried.returncode == 0, retried.stderr
    assert f"trained {failed} runs" in retried.stderr
    assert "attributed difference_in_means (from 60 models" in retried.stderr
    with sweep.store() as store:
        now = store.outputs("fit", "value")
    np.testing.assert_array_equal(now[~at_fault["fit"]], kept[~at_fault["fit"]])
    assert np.isfinite(now).all()


@pytest.mark.slow
def test_every_run_fails(counterfactory, ask, make_sweep):
    sweep = make_sweep(task=TASK, sections=SECTIONS)
    result = counterfactory("run", sweep.config, "--out", sweep.folder, FAULTS='{"all": "raise"}')
    assert result.returncode == 1
    assert "RuntimeError: never works" in result.stderr
    assert "--retry-failed" in result.stderr
    assert "Traceback" not in result.stderr
    assert "fit: RuntimeError: never works" in ask("status", sweep.folder)[1]
    # Nothing is finished that could be mixed with runs of an edited source.
    (sweep.config.parent / "task.py").write_text(TASK.replace("BROKEN = True", "BROKEN = False"))
    mended = counterfactory("run", sweep.config, "--retry-failed", "--out", sweep.folder, FAULTS="{}")
    assert "trained 76 runs" in mended.stderr, mended.stderr


@pytest.mark.slow
def test_a_driver_that_aborts_when_every_run_fails_leaves_a_sweep_that_goes_on(
    counterfactory, ask, ask_json, make_sweep
):
    sweep = make_sweep(task=TASK, sections=SECTIONS)
    script = sweep.folder.with_name("aborting.py")
    script.write_text(ABORTS)
    result = counterfactory("run", sweep.config, "--out", sweep.folder, script=script, FAULTS='{"all": "raise"}')
    assert result.returncode == -signal.SIGABRT, result.stderr
    status = ask_json("status", sweep.folder)[1]
    assert status["failed"] >= 50
    assert (status["done"], status["running"]) == (0, None)
    assert ask("verify", sweep.folder)[0] == 0
    (sweep.config.parent / "task.py").write_text(TASK.replace("BROKEN = True", "BROKEN = False"))
    mended = counterfactory("run", sweep.config, "--retry-failed", "--out", sweep.folder, FAULTS="{}")
    assert mended.returncode == 0, mended.stderr
    assert "76 of 76 are done" in mended.stderr


@pytest.mark.slow
def test_a_node_without_memory(counterfactory, make_sweep):
    """Ray's memory monitor kills workers above a threshold, here anything: packs are halved and runs recorded, none hangs."""
    designs = {"fit": {"kind": "subsets", "subsets": 2}}
    sweep = make_sweep(task=TASK, sections={**SECTIONS, "designs": designs, "estimators": {}})
    environment = {
        "RAY_memory_usage_threshold": "0.001",
        "RAY_memory_monitor_refresh_ms": "100",
        "FAULTS": '{"all": "rest"}',
    }
    result = counterfactory("run", sweep.config, "--out", sweep.folder, **environment)
    assert result.returncode == 1, result.stderr
    assert "2 runs failed" in result.stderr
    with sweep.store() as store:
        assert all(failure.message.startswith("out of memory, alone") for failure in store.failures("fit"))
