"""A task's file and its siblings are a package of their own: nothing of it is another task's, nothing of it is stale."""

import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from workers.errors import TaskError
from workers.task_files import load_file

TASK = """
from helper import K

def lazily():
    import helper
    import parts.inner as inner
    from parts import other
    return helper.K, inner.K, other.helper.K
"""


@pytest.fixture(autouse=True)
def as_it_was():
    """Hold every test to leave `sys.path` and the public names of `sys.modules` alone."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    assert sys.path == path
    assert not {name for name in set(sys.modules) - modules if name.partition(".")[0] in {"helper", "parts", "task"}}


def write(folder: Path, k: int, task: str = TASK) -> Path:
    """Write a task with a sibling, and a sibling package that imports the first."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    (folder / "helper.py").write_text(f"K = {k}\nclass Kept: k = {k}\n")
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "inner.py").write_text(f"from helper import K\nK = 10 * {k}\n")
    (folder / "parts" / "other.py").write_text("import helper\nfrom . import inner\n")
    (folder / "task.py").write_text(task)
    return folder / "task.py"


def test_two_tasks_have_a_helper_each(tmp_path: Path) -> None:
    first, second = load_file(write(tmp_path / "a", 1)), load_file(write(tmp_path / "b", 2))
    assert (first.K, second.K) == (1, 2)
    assert first.lazily() == (1, 10, 1)
    assert second.lazily() == (2, 20, 2)


def test_a_helper_of_the_users_own_script_is_not_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("helper")
    theirs.K = 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "helper", theirs)
    assert load_file(write(tmp_path, 1)).lazily() == (1, 10, 1)
    assert importlib.import_module("helper") is theirs


def test_a_changed_helper_is_read_again_even_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = write(tmp_path, 1)
    first = load_file(path)
    assert load_file(path) is first
    (tmp_path / "helper.py").write_text("K = 2\nclass Kept: k = 2\n")
    assert load_file(path).K == 2
    assert first.K == 1
    assert not list(tmp_path.rglob("__pycache__")), "nothing is written beside the user's files"


def test_what_a_helper_defines_can_be_pickled(tmp_path: Path) -> None:
    module = load_file(write(tmp_path, 3, "import helper\nfrom helper import Kept\n"))
    assert pickle.loads(pickle.dumps(module.Kept())).k == 3
    assert module.helper.Kept is module.Kept


def test_in_another_process_the_names_are_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, 3, "from helper import Kept\n")
    script = (
        "import pickle, sys; from pathlib import Path; from workers.task_files import load_file;"
        "load_file(Path(sys.argv[1])); print(pickle.load(sys.stdin.buffer).k)"
    )
    sent = pickle.dumps(load_file(path).Kept())
    other = subprocess.run([sys.executable, "-c", script, str(path)], input=sent, capture_output=True, check=True)
    assert other.stdout == b"3\n"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("import parts.inner; found = parts.inner.K", 10),
        ("import parts.inner as inner; found = inner.K", 10),
        ("from parts.inner import K as found", 10),
        ("from .helper import K as found", 1),
        ("from . import helper; found = helper.K", 1),
        ("from helper import *; found = K", 1),
        ("import json; found = json.loads('5')", 5),
        ("import os.path; found = len(os.path.basename('abc'))", 3),
        ("from plain.deep import found", 4),
        ("import random; found = len(random.sample(range(9), 2))", 2),
        ("import numpy.linalg; found = numpy.linalg.norm([3, 4])", 5),
    ],
)
def test_what_an_import_means(tmp_path: Path, line: str, value: int) -> None:
    path = write(tmp_path, 1, line)
    (tmp_path / "random.py").write_text("raise RuntimeError('the standard library is meant')")
    (tmp_path / "numpy").mkdir()  # a folder of data, say
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "deep.py").write_text("found = 4")
    assert load_file(path).found == value


def test_a_sibling_is_meant_before_an_installed_package(tmp_path: Path) -> None:
    path = write(tmp_path, 1, "import yaml\nfrom helper import K\nfound = yaml.found")
    (tmp_path / "yaml.py").write_text("found = 6")
    assert load_file(path).found == 6
    assert not hasattr(importlib.import_module("yaml"), "found")


def test_a_task_may_be_imported_back(tmp_path: Path) -> None:
    path = write(tmp_path, 1, "X = 5\nimport back\n")
    (tmp_path / "back.py").write_text("import task\nfound = task.X")
    module = load_file(path)
    assert module.back.found == 5
    assert module.back.task is module


def test_code_of_a_private_package_compiles(tmp_path: Path) -> None:
    module = load_file(write(tmp_path, 2, "from helper import K\ndef f(x):\n    return K * x + len(x)"))
    assert torch.compile(module.f, backend="eager", fullgraph=True)(torch.ones(3)).tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from helper import absent", "task.py, line 1: ImportError: cannot import name 'absent' from 'helper'"),
        ("import helper.absent", "task.py, line 1: ModuleNotFoundError: No module named 'helper.absent'"),
        ("import broken", "task.py, line 1: ZeroDivisionError: division by zero"),
    ],
)
def test_a_failed_import_is_one_line_and_tried_again(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, 1, line)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(TaskError) as caught:
        load_file(path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    (tmp_path / "broken.py").write_text("")
    (tmp_path / "helper.py").unlink()
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper" / "__init__.py").write_text("absent = 1")
    (tmp_path / "helper" / "absent.py").write_text("")
    load_file(path)
