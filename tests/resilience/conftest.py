"""Real processes: the command line as a user has it, started, killed and compared from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.store.ledger import DONE
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 180.0
"""Seconds after which a process under test is taken to hang."""
CONSOLE_SCRIPT = "import sys\nfrom orchestrator.cli.main import main\nsys.exit(main())\n"

SLOW_TASK = '''"""Digits by logistic regression; on a worker, every training rests for PAUSE seconds first."""

import os
import sys
import time

import torch

from workers.tasks.digits import Digits


class Slow(Digits):
    def module(self):
        torch.rand(1)  # what draws more than its parameters is built for every run
        if sys.argv[0].endswith("default_worker.py"):
            time.sleep(float(os.environ.get("PAUSE", "0")))
        return super().module()
'''

SWEEP: dict[str, Any] = {
    "name": "small",
    "task": {"name": "task.py:Slow", "arguments": {"n": 100, "t": 10, "model": "logistic", "recipe": {"epochs": 3}}},
    "measures": ["margin", "correct"],
    "pack": 4,
    "designs": {
        "reference": {"kind": "full", "seeds": 2, "checkpoints": [1]},
        "fit": {"kind": "subsets", "subsets": 50},
        "heldout": {"kind": "subsets", "subsets": 6, "seeds": 2, "purpose": "score"},
    },
    "estimators": {"tracin": {}, "difference_in_means": {}},
    "scores": {"lds": {"resamples": 100}},
    "ray": {"workers": 2, "environment": ["PAUSE", "FAULTS"]},  # what the tasks here ask for
}
"""64 runs in 17 packs, reference models with checkpoints, an estimator of each kind."""


@dataclass
class Counterfactory:
    """The command line, installed in an environment of its own as a user would have it: nothing on PYTHONPATH."""

    python: Path
    script: Path
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *arguments: object, script: Path | None = None) -> list[str]:
        return [str(self.python), str(script or self.script), *map(str, arguments)]

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "RAY_ADDRESS"}}
        cache = str(self.script.parent.parent / "cache")
        return {**inherited, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "COUNTERFACTORY_CACHE": cache, **extra}

    def __call__(
        self, *arguments: object, cwd: Path | None = None, script: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*arguments, cwd=cwd, script=script, **environment)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(
        self, *arguments: object, cwd: Path | None = None, script: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a shell does."""
        process = subprocess.Popen(
            self.command(*arguments, script=script),
            cwd=cwd,
            env=self.environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def clean(self) -> None:
        """End what is still running of the processes that were started here."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        self._started.clear()


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment in which this checkout and the libraries of this one are installed."""
    home = tmp_path_factory.mktemp("installation")
    venv.create(home, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    libraries = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (site / "under_test.pth").write_text(
        f"{CHECKOUT}\n" + "".join(f"import site; site.addsitedir({library!r})\n" for library in libraries)
    )
    (home / "bin" / "counterfactory.py").write_text(CONSOLE_SCRIPT)
    return home


@pytest.fixture(scope="session")
def session_command(installation: Path) -> Iterator[Counterfactory]:
    made = Counterfactory(installation / "bin" / Path(sys.executable).name, installation / "bin" / "counterfactory.py")
    yield made
    made.clean()


@pytest.fixture
def counterfactory(session_command: Counterfactory) -> Iterator[Counterfactory]:
    yield session_command
    session_command.clean()


@dataclass(frozen=True)
class Sweep:
    """A configuration file with its task file, and the sweep folder they make."""

    config: Path
    folder: Path

    def store(self) -> RunStore:
        return RunStore.open(SweepPaths(self.folder))

    def commits(self) -> int:
        """Number of packs that the ledger has."""
        return sum(path.stem.isdecimal() for path in self.folder.glob("ledger/*/*.json"))

    def planned(self) -> bool:
        """Whether the plan of every design is durable."""
        return all((self.folder / "ledger" / design / "plan.json").is_file() for design in SWEEP["designs"])

    def states(self) -> dict[str, list[int]]:
        with self.store() as store:
            return {name: store.states(name).tolist() for name in store.designs}

    def done(self) -> int:
        return sum(state == DONE for states in self.states().values() for state in states)


MakeSweep = Callable[..., Sweep]


def write_sweep(place: Path, task: str = SLOW_TASK, sections: Mapping[str, Any] | None = None) -> Sweep:
    """Write a small sweep's files; `sections` replace those of its configuration."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "task.py").write_text(task)
    (place / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, **(sections or {})}))
    return Sweep(place / "sweep.yaml", place / "out")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small sweep's configuration and task: one for all its sweeps, as file names are part of them."""
    place = tmp_path_factory.mktemp("small")
    write_sweep(place)
    return place


@pytest.fixture
def small(files: Path, tmp_path: Path) -> Sweep:
    """The small sweep, not yet run."""
    return Sweep(files / "sweep.yaml", tmp_path / "small")


@pytest.fixture
def make_sweep(tmp_path: Path) -> MakeSweep:
    """Make another sweep: its task file's content, and the sections of its configuration that differ."""

    def make(task: str, sections: Mapping[str, Any]) -> Sweep:
        return write_sweep(tmp_path / "own", task, sections)

    return make


@pytest.fixture(scope="session")
def undisturbed(files: Path, session_command: Counterfactory, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """The small sweep, run from beginning to end without disturbance."""
    sweep = Sweep(files / "sweep.yaml", tmp_path_factory.mktemp("undisturbed") / "out")
    result = session_command("run", sweep.config, "--out", sweep.folder)
    assert result.returncode == 0, result.stderr
    return sweep


@pytest.fixture
def damaged_copy(undisturbed: Sweep, small: Sweep) -> Sweep:
    """A copy of the undisturbed sweep, to be damaged."""
    shutil.copytree(undisturbed.folder, small.folder)
    return small


def differences(one: RunStore, other: RunStore) -> Iterator[str]:
    """Yield every array, row or checkpoint in which two stores are not equal bit by bit."""
    if (one.designs, one.measures, one.config_hash) != (other.designs, other.measures, other.config_hash):
        yield "the designs"
        return
    for name in one.designs:
        for part in ("states", "masks", "seeds", "subsets", "repeats"):
            if getattr(one, part)(name).tobytes() != getattr(other, part)(name).tobytes():
                yield f"{part} of {name}"
        for measure in one.measures:
            mine, theirs = one.outputs(name, measure), other.outputs(name, measure)
            if mine.tobytes() != theirs.tobytes():
                yield f"{measure} of {name}, rows {np.flatnonzero((mine != theirs).any(axis=1)).tolist()}"
        for pack in range(one.designs[name].packs):
            mine_rows, their_rows = one.record(name, pack).done(), other.record(name, pack).done()
            for row in mine_rows.keys() | their_rows.keys():
                mine_row, their_row = mine_rows.get(row), their_rows.get(row)
                if mine_row is None or their_row is None or mine_row.hash != their_row.hash:
                    yield f"the hash of row {row} of {name}"
                elif mine_row.checkpoints != their_row.checkpoints:
                    yield f"the checkpoints of row {row} of {name}"


@pytest.fixture(scope="session")
def assert_equal_stores() -> Callable[[Sweep, Sweep], None]:
    def check(one: Sweep, other: Sweep) -> None:
        with one.store() as mine, other.store() as theirs:
            assert not list(differences(mine, theirs))

    return check


WaitUntil = Callable[..., None]


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Wait until a condition holds, while the process that should bring it about is alive."""

    def wait(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if process.poll() is not None:
                pytest.fail(f"ended with {process.returncode} before its moment: {process.stderr.read()}")  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def ask() -> Callable[..., tuple[int, str]]:
    """Run a command that only reads, here in this process: what it returned and printed."""

    def invoke(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.stdout

    return invoke


@pytest.fixture(scope="session")
def ask_json(ask: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, Any]]:
    """Run a command that only reads with --json: what it returned and said."""

    def invoke(*arguments: object) -> tuple[int, Any]:
        code, said = ask(*arguments, "--json")
        return code, json.loads(said)

    return invoke


@pytest.fixture(scope="session")
def family() -> Callable[[int], list[str]]:
    """List the command lines of the living processes of a session (the leader's pid names it); Ray's stay in it."""

    def members(session: int) -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:  # it ended meanwhile
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(command)
        return found

    return members
