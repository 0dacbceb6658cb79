"""A sweep so small that it takes a second: 42 runs of logistic regression on 60 digits."""

import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from orchestrator.cli import main
from orchestrator.config import yaml_format
from orchestrator.config.loading import validate
from orchestrator.config.schema import Config, RaySection
from orchestrator.execution import ray_session
from orchestrator.execution.pool import Done, Job, Lost, Work
from orchestrator.execution.ray_pool import ray_pool
from orchestrator.forecast.trial_runs import try_runs
from orchestrator.stages import forecast
from orchestrator.sweeps.strategy_record import read_strategy
from orchestrator.sweeps.sweep import Sweep, content_hash
from workers.loading import TaskSpec
from workers.packs import PackTrainer
from workers.prefixes import train_prefixes
from workers.runs import Queries

TINY: dict[str, Any] = {
    "name": "tiny",
    "task": {"name": "digits", "arguments": {"n": 60, "t": 8, "model": "logistic", "recipe": {"epochs": 3}}},
    "measures": ["margin", "loss"],
    "pack": 8,
    "designs": {
        "reference": {"kind": "full", "seeds": 2, "checkpoints": [1]},
        "fit": {"kind": "subsets", "alpha": 0.5, "subsets": 20},
        "heldout": {"kind": "subsets", "alpha": 0.5, "subsets": 6, "seeds": 2, "purpose": "score"},
        "left_out": {"kind": "leave_one_out", "examples": 4, "seeds": 2, "paired_with": "reference"},
    },
    "estimators": {"random": {}, "tracin": {}, "difference_in_means": {}},
    "scores": {"lds": {"resamples": 100}, "loo": {"resamples": 100}},
}


@dataclass
class InlinePool:
    """Trains for real, in this process: what the scheduler and the stages need of Ray."""

    sweep: Sweep
    slots: int = 2
    grain: int | None = 1
    submitted: list[Job] = field(default_factory=list)
    _flying: deque[Job] = field(default_factory=deque)

    @cached_property
    def trainer(self) -> PackTrainer:
        return PackTrainer(self.sweep.task, strategy=read_strategy(self.sweep))

    def submit(self, job: Job) -> None:
        self.submitted.append(job)
        self._flying.append(job)

    def collect(self, timeout: float) -> list[Done | Lost]:
        job = self._flying.popleft()
        sweep = self.sweep
        asked = (job.runs, sweep.config.measures, sweep.queries)
        trainer = self.trainer
        outcomes = train_prefixes(trainer, *asked, job.arrival) if job.arrival else trainer.train(*asked)
        return [Done(job, tuple(outcomes), "inline", 1.0, 1.0)]

    def cancel(self) -> None:
        self._flying.clear()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The tiny sweep's configuration, to be changed at will."""
    return deepcopy(TINY)


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Change sections of a sweep's configuration, with hashes to fit: what somebody does who wants it to be opened."""

    def write(folder: Path, **sections: Any) -> None:
        path = folder / "config.yaml"
        plain = {**yaml_format.load(path.read_text()), **sections}
        hashes = {"hash": plain.pop("hash")}
        plain.pop("content_hash")
        if "seal" in plain:
            hashes["seal"] = plain.pop("seal")
        hashes["content_hash"] = content_hash(plain)
        path.write_text(yaml_format.dump({**hashes, **plain}))

    return write


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[[dict[str, Any]], Config]:
    """Validate plain data, its files looked for in tmp_path."""
    return lambda raw: validate({"name": "tiny", "folder": str(tmp_path), **raw}, "tiny.yaml")


@pytest.fixture
def make_sweep(make_config: Callable[[dict[str, Any]], Config], tmp_path: Path) -> Callable[[dict[str, Any]], Sweep]:
    """Make a sweep of plain data in tmp_path/sweep."""
    return lambda raw: Sweep.of(make_config(raw), tmp_path / "sweep")


GAME = """
import numpy as np

WORTH = np.array([0.9 ** i for i in range(32)])


class Game:
    \"\"\"What a subset is worth is the sum of its examples' worth, plus noise of the seed alone; 1 - 2^-size saturates.\"\"\"

    t = 3

    def __init__(self, n=8, noise=0.0):
        self.n, self.noise = n, noise

    def train(self, subset, seed):
        return subset, self.noise * np.random.default_rng(seed).normal(size=self.t)

    def measure(self, model):
        subset, noise = model
        return {
            "worth": WORTH[subset].sum() + noise,
            "saturating": 1 - 0.5 ** len(subset) + noise,
            "first": np.arange(self.t) * (0.0 + (0 in subset)) + noise,
        }

    def measure_empty(self):
        return {"worth": np.zeros(self.t), "saturating": np.zeros(self.t), "first": np.zeros(self.t)}
"""


@pytest.fixture
def game(tmp_path: Path) -> dict[str, Any]:
    """The configuration, to be completed, of an analytic game that trains in microseconds."""
    (tmp_path / "game.py").write_text(GAME)
    return {"name": "game", "task": {"name": "game.py:Game"}, "measures": ["worth"], "pack": 4}


@pytest.fixture
def inline_pool() -> type[InlinePool]:
    return InlinePool


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line in this process, as the console script does."""

    monkeypatch.setattr(forecast, "try_runs", partial(try_runs, budget=0.2))

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["counterfactory", *map(str, arguments)])
        try:
            main.main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(command: Command) -> Callable[..., str]:
    """Run a command that must end as a user's mistake does, and return its one line."""

    def run(*arguments: object) -> str:
        ended = command(*arguments)
        assert ended.code == 2, ended
        assert ended.out == ""
        assert ended.err.count("\n") == 1, ended.err
        assert ended.err.endswith("\n")
        return ended.err.rstrip("\n")

    return run


@pytest.fixture(scope="session")
def ray_started() -> Iterator[None]:
    """Ray of two cores, started once by the product's own pool; later pools find it and use it."""
    work = Work(TaskSpec("digits", {"n": 10, "t": 2}), ("margin",), Queries(), "cpu", 1)
    with mock.patch.object(ray_session, "cores", return_value=2), ray_pool(work, RaySection()):
        yield


@pytest.fixture(scope="session")
def finished_sweep(ray_started: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny sweep after `counterfactory run`; only to be read."""
    place = tmp_path_factory.mktemp("finished")
    (place / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    arguments = ["counterfactory", "run", str(place / "tiny.yaml"), "--out", str(place / "sweep")]
    with mock.patch.object(sys, "argv", arguments), pytest.raises(SystemExit) as ended:
        main.main()
    assert not ended.value.code
    return place / "sweep"


@pytest.fixture
def sweep_copy(finished_sweep: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return Path(shutil.copytree(finished_sweep, tmp_path / "copy"))


@pytest.fixture
def tiny_yaml(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """The configuration file of the tiny sweep."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny, sort_keys=False))
    return path
