"""The command line answers at once: what a command does not need, it does not import."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "ray", "numba", "scipy.stats", "sklearn")
"""Each takes a second or more to import, and some hundred MB."""
RUNNER = f"""
import sys
from orchestrator.cli.main import main
code = 0
try:
    main()
except SystemExit as stop:
    code = stop.code or 0
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Answer:
    """How a command ended in a process of its own."""

    code: int
    out: str
    err: str
    heavy: list[str]
    """Which of the heavy modules it had imported."""


def answer(*arguments: object) -> Answer:
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    *err, heavy = done.stderr.splitlines()
    return Answer(done.returncode, done.stdout, "\n".join(err), ast.literal_eval(heavy))


COMMANDS = (
    "run", "plan", "retrain", "attribute", "score", "report", "status", "verify", "import", "export", "init", "schema", "configs",
    "list", "describe",
)  # fmt: skip


@pytest.mark.parametrize("arguments", [("--help",), *((command, "--help") for command in COMMANDS)])
def test_help_is_given_at_once(arguments: tuple[str, ...]) -> None:
    given = answer(*arguments)
    assert (given.code, given.heavy) == (0, [])
    assert "Usage:" in given.out


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("configs", "digits_shapley"),
        ("schema", "difference_in_means"),
        ("list tasks", "cifar10"),
        ("list estimators", "trak"),
        ("list designs", "bernoulli"),
        ("describe shapley", "antithetic"),
    ],
)
def test_what_there_is_is_listed_at_once(command: str, named: str) -> None:
    given = answer(*command.split())
    assert (given.code, given.heavy) == (0, [])
    assert named in given.out


def test_a_configuration_to_start_from_is_written_at_once(tmp_path: Path) -> None:
    given = answer("init", tmp_path / "mine.yaml")
    assert (given.code, given.heavy) == (0, [])


MISTAKES = [
    (("rum", "digits"), "No such command 'rum'"),
    (("run", "digits", "--rety"), "No such option: --rety"),
    (("run",), "Missing argument 'CONFIG'"),
    (("run", "digts"), "no configuration file 'digts'"),
    (("run", "digits", "seed"), "override 'seed': expected key.sub=value"),
    (("run", "digits", "desings={}"), "unknown key 'desings': did you mean designs?"),
    (("run", "digits", "seed=x"), "seed: input should be a valid integer"),
    (("run", "digits", "designs.fit.kind=subset"), "designs.fit.kind: unknown kind 'subset': did you mean subsets?"),
    (("plan", "digits", "estimators.trakk={}"), "estimators.trakk: unknown estimator 'trakk': did you mean trak"),
    (("plan", "digits", "estimators.datamodel.foldz=3"), "unknown key 'estimators.datamodel.foldz': did you mean folds"),
    (("plan", "digits", "estimators.trak.project_dim=x"), "estimators.trak.project_dim: input should be"),
    (("status", "/no/such/folder"), "/no/such/folder: is not a sweep (it has no config.yaml)"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), MISTAKES)
def test_a_mistake_is_answered_at_once(arguments: tuple[str, ...], said: str) -> None:
    given = answer(*arguments)
    assert (given.code, given.out, given.heavy) == (2, "", [])
    assert said in given.err


@pytest.fixture
def unwritten(finished_sweep: Path, tmp_path: Path, rewrite: Callable[..., None]) -> Path:
    """The finished sweep's folder, whose estimators have options that only their classes could refuse."""
    folder = tmp_path / "sweep"
    shutil.copytree(finished_sweep, folder)
    text = (folder / "config.yaml").read_text()
    assert "estimator: tracin" in text
    (folder / "config.yaml").write_text(text.replace("estimator: tracin", "estimator: somebody_elses"))
    rewrite(folder)
    return folder


@pytest.mark.parametrize("command", ["status", "verify", "export"])
def test_looking_at_a_sweep_is_answered_at_once_and_without_its_estimators(
    command: str, unwritten: Path, tmp_path: Path
) -> None:
    given = answer(command, unwritten, *(("--to", tmp_path / "runs.npz") if command == "export" else ()))
    assert (given.code, given.heavy) == (0, []), given.err
    assert given.out


def test_what_trains_leaves_the_compiler_where_it_is() -> None:
    """Importing it takes every worker seconds, and only a compiled step needs it."""
    told = "import sys, orchestrator.execution.ray_pool; print('torch' in sys.modules, 'torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["True", "False"]
