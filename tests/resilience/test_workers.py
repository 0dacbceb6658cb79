"""How many workers train a sweep changes when its packs are trained, and no bit of them."""

from __future__ import annotations

import os
import signal
from itertools import pairwise

import pytest

from orchestrator.config.schema import RaySection
from orchestrator.execution.resources import refuse_impossible
from workers.errors import ConfigError


def spans(sweep):
    """Return when each pack began and ended."""
    with sweep.store() as store:
        commits = [
            commit
            for name, layout in store.designs.items()
            for pack in range(layout.packs)
            for commit in store.record(name, pack).commits
        ]
    return sorted((commit.started, commit.finished) for commit in commits)


@pytest.mark.slow
def test_one_worker_and_two_agree(counterfactory, small, undisturbed, assert_equal_stores):
    result = counterfactory("run", small.config, "ray.workers=1", "--out", small.folder, PAUSE="0.02")
    assert result.returncode == 0, result.stderr
    assert_equal_stores(small, undisturbed)
    packs = spans(small)
    assert len(packs) == 17
    assert all(ended <= began + 0.01 for (_, ended), (began, _) in pairwise(packs))


@pytest.mark.slow
def test_seen_and_guarded_while_it_runs(counterfactory, small, wait_until, ask, ask_json):
    process = counterfactory.start("run", small.config, "--out", small.folder, PAUSE="0.8")
    wait_until(lambda: small.commits() >= 2, process)

    _, status = ask_json("status", small.folder)
    assert status["running"]["pid"] == process.pid
    assert status["rate"] > 0
    assert status["seconds_left"] > 0
    assert 6 <= status["done"] < 64
    assert status["failed"] == 0
    assert status["done"] + status["pending"] == 64
    assert f"process {process.pid}" in ask("status", small.folder)[1]

    second = counterfactory("run", small.config, "--out", small.folder)
    assert second.returncode == 2
    assert f"process {process.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1

    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _, status = ask_json("status", small.folder)
    assert status["running"] is None
    assert status["rate"] is None


def test_impossible_resources_are_refused_at_once(counterfactory, small):
    result = counterfactory("run", small.config, "ray.num_cpus=999", "--out", small.folder)
    assert result.returncode == 2
    assert "CPU 999" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not small.folder.exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"workers": 999}, "ray.workers"), ({"num_gpus": 64}, "GPU 64"), ({"memory": 1 << 60}, "memory")],
)
def test_impossible_resources_are_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        refuse_impossible(RaySection(**settings))
    refuse_impossible(RaySection(address="ray://elsewhere:10001", **settings))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"ray\.device: cuda is asked for, but PyTorch finds no GPU"):
        refuse_impossible(RaySection(device="cuda"))
    refuse_impossible(RaySection(device="cuda", address="ray://elsewhere:10001"))
    refuse_impossible(RaySection(device="cpu"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    refuse_impossible(RaySection(device="cuda"))


def test_an_unknown_device_is_refused(counterfactory, small):
    result = counterfactory("plan", small.config, "ray.device=tpu")
    assert result.returncode == 2
    assert "ray.device" in result.stderr
    assert "cuda" in result.stderr
    assert len(result.stderr.splitlines()) == 1
