"""Runs that fail are recorded alone, with their reason; their neighbours are trained, and the rest of the chain goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from orchestrator.attributions import read_attribution
from orchestrator.keys import seed_of
from orchestrator.paths import SweepPaths
from orchestrator.store import DONE, FAILED

TASK = '''"""A black box that fails in the ways its faults say, by seed."""

import json
import os
import signal

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
MENDED = TASK.replace("BROKEN = True", "BROKEN = False")
SECTIONS = {
    "task": {"name": "task.py:Picky"},
    "measures": ["value"],
    "pack": 4,
    "designs": {
        "fit": {"kind": "subsets", "subsets": 60},
        "heldout": {"kind": "subsets", "subsets": 8, "seeds": 2, "purpose": "score"},
    },
    "estimators": {"difference_in_means": {}},
}


@pytest.mark.slow
def test_a_run_that_raises(counterfactory, make_sweep, as_json):
    sweep = make_sweep(task=TASK, sections=SECTIONS)
    result = counterfactory("run", sweep.config, "--out", sweep.folder)
    with sweep.store() as store:
        at_fault = {name: store.masks(name)[:, [3, 7]].all(axis=1) for name in store.designs}
        kept = store.outputs("fit", "value")
        for name, wrong in at_fault.items():
            np.testing.assert_array_equal(store.states(name), np.where(wrong, FAILED, DONE))
            failures = store.failures(name)
            assert [one.row for one in failures] == np.flatnonzero(wrong).tolist()
            assert all(one.kind == "ValueError" and "in look_at_both" in one.traceback for one in failures)
    failed = int(sum(wrong.sum() for wrong in at_fault.values()))
    assert 0 < failed < 40

    assert result.returncode == 1  # everything was done that can be, and not everything could
    assert f"{failed} runs failed" in result.stderr
    assert f"{76 - failed} of 76 are done" in result.stderr
    done_fits = int((~at_fault["fit"]).sum())
    assert f"attributed difference_in_means (from {done_fits} models" in result.stderr
    assert read_attribution(SweepPaths(sweep.folder), "difference_in_means")[3]["models"] == done_fits
    assert (sweep.folder / "report.html").is_file()

    status = as_json(counterfactory("status", sweep.folder, "--json"))
    assert (status["failed"], status["done"], status["pending"]) == (failed, 76 - failed, 0)
    line = "fit: ValueError: 3 and 7 do not go together, in a subset of 6"
    assert f"{line} ({at_fault['fit'].sum()} times)" in status["failures"]
    assert line in counterfactory("status", sweep.folder).stdout

    again = counterfactory("run", sweep.config, "--out", sweep.folder)
    assert again.returncode == 1
    assert "runs to train" not in again.stderr  # a failure is not tried again unasked

    (sweep.config.parent / "task.py").write_text(MENDED)
    retried = counterfactory("run", sweep.config, "--retry-failed", "--out", sweep.folder)
    assert retried.returncode == 0, retried.stderr
    assert f"trained {failed} runs" in retried.stderr
    assert "attributed difference_in_means (from 60 models" in retried.stderr
    with sweep.store() as store:
        now = store.outputs("fit", "value")
    np.testing.assert_array_equal(now[~at_fault["fit"]], kept[~at_fault["fit"]])
    assert np.isfinite(now).all()


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 1])
def test_a_run_that_kills_its_worker(counterfactory, make_sweep, as_json, retries):
    sweep = make_sweep(task=MENDED, sections=SECTIONS)
    faults = {5: "exit", 10: "kill", 14: "memory"}
    by_seed = {str(seed_of(0, "fit", row, 0)): fault for row, fault in faults.items()}
    result = counterfactory(
        "run", sweep.config, f"ray.retries={retries}", "--out", sweep.folder, FAULTS=json.dumps(by_seed)
    )
    assert result.returncode == 1, result.stderr
    assert "3 runs failed" in result.stderr
    with sweep.store() as store:
        assert np.flatnonzero(store.states("fit") == FAILED).tolist() == list(faults)
        assert (store.states("heldout") == DONE).all()
        died, killed, memory = store.failures("fit")
    assert died.message.startswith("its worker died, alone")
    assert killed.message.startswith("its worker died, alone")
    assert memory.message == "out of memory, alone: run 14: no room for it"
    assert "in train" in memory.traceback
    assert "MemoryError: no room for it" in memory.traceback
    assert len(as_json(counterfactory("status", sweep.folder, "--json"))["failures"]) >= 2

    retried = counterfactory("run", sweep.config, "--retry-failed", "--out", sweep.folder)
    assert retried.returncode == 0, retried.stderr
    assert "trained 3 runs" in retried.stderr


@pytest.mark.slow
def test_every_run_fails(counterfactory, make_sweep):
    sweep = make_sweep(task=MENDED, sections=SECTIONS)
    result = counterfactory("run", sweep.config, "--out", sweep.folder, FAULTS='{"all": "raise"}')
    assert result.returncode == 1
    assert "RuntimeError: never works" in result.stderr
    assert "--retry-failed" in result.stderr
    assert "Traceback" not in result.stderr
    assert "fit: RuntimeError: never works" in counterfactory("status", sweep.folder).stdout
