"""What looks like a secret is in no file of a sweep; the sweep is the same without it, and says what it lacks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.stages.plan import prepare
from orchestrator.store.lease import holder
from orchestrator.store.secret_names import LEFT_OUT
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

VALUE = "s3cr3t-value"


@pytest.fixture
def asked(game: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A sweep whose task needs a password."""
    path = tmp_path / "game.py"
    path.write_text(path.read_text().replace("n=8, noise=0.0)", "n=8, noise=0.0, *, api_key, login)"))
    arguments = {"api_key": VALUE, "login": {"user": "me", "password": VALUE}}
    game["task"] = {"name": "game.py:Game", "arguments": arguments}
    game["designs"] = {"fit": {"kind": "subsets", "alpha": 0.5, "subsets": 4}}
    return game


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_no_file_of_a_sweep_holds_one(asked: dict[str, Any], make_sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["counterfactory", "run", f"task.arguments.api_key={VALUE}"])
    monkeypatch.setenv("SOME_TOKEN", VALUE)
    sweep: Sweep = make_sweep(asked)
    said: list[str] = []
    with prepare(sweep, say=said.append):
        found = holder(sweep.paths)
        assert found is not None
        assert found["command"] == f"counterfactory run task.arguments.api_key={LEFT_OUT}"
    assert said == [
        "config.yaml leaves out task.arguments.api_key, task.arguments.login.password: what looks like a secret is not kept"
    ]
    assert [name for name, content in contents(sweep.paths.root).items() if VALUE.encode() in content] == []
    private = [sweep.paths.config, sweep.paths.lease, sweep.paths.provenance]
    assert [oct(path.stat().st_mode & 0o777) for path in private] == ["0o600"] * 3


def test_a_file_that_its_owner_shares_stays_shared(asked: dict[str, Any], make_sweep: Any) -> None:
    sweep: Sweep = make_sweep(asked)
    prepare(sweep).close()
    os.chmod(sweep.paths.config, 0o640)
    prepare(sweep).close()
    assert oct(sweep.paths.config.stat().st_mode & 0o777) == "0o640"


def test_it_goes_on_with_another_secret_and_not_without_one(asked: dict[str, Any], make_sweep: Any) -> None:
    sweep: Sweep = make_sweep(asked)
    prepare(sweep).close()
    kept = Sweep.at(sweep.paths.root)
    assert kept.config.identity() == sweep.config.identity()
    with pytest.raises(ConfigError, match=r"leaves out task\.arguments\.api_key, .*run CONFIG --out") as caught:
        _ = kept.task
    assert "\n" not in str(caught.value)
    asked["task"]["arguments"]["api_key"] = "another"
    other: Sweep = make_sweep(asked)
    assert other.config.identity() == sweep.config.identity()
    prepare(other).close()


def test_the_names_of_designs_are_no_secrets(game: dict[str, Any], make_sweep: Any) -> None:
    game["designs"] = {"token": {"kind": "subsets", "alpha": 0.5, "subsets": 4}}
    sweep: Sweep = make_sweep(game)
    prepare(sweep).close()
    assert list(Sweep.at(sweep.paths.root).config.designs) == ["token"]
