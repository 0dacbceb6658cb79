"""`list` and `describe`: every estimator, design and task, in tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.catalog.registry import GROUPS
from orchestrator.cli.main import app
from workers.errors import ConfigError


def printed(*arguments: str) -> str:
    given = CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False)
    return given.stdout


@pytest.mark.parametrize("name", list(GROUPS))
def test_a_list_has_a_line_a_name(name: str) -> None:
    lines = printed("list", name).splitlines()
    assert [line.split()[0] for line in lines if line[:1].isalpha()] == list(GROUPS[name].names())
    told = json.loads(printed("list", name, "--json"))
    assert [one["name"] for one in told] == list(GROUPS[name].names())


def test_all_of_one_is_told() -> None:
    text = printed("describe", "trak")
    assert "trak, estimator" in text
    assert "those of the measure with some options" in text
    for option in ("measure", "project_dim", "damping", "reweight"):
        assert f"\n {option} " in text
    assert "`" not in text, "no Markdown is left over"


def test_of_a_name_that_is_two_things_both_are_told() -> None:
    text = printed("describe", "leave_one_out")
    assert "leave_one_out, estimator" in text
    assert "leave_one_out, design" in text
    assert [one["group"] for one in json.loads(printed("describe", "leave_one_out", "--json"))] == [
        "estimator",
        "design",
    ]


def test_a_mistake_is_one_line() -> None:
    with pytest.raises(ConfigError, match="did you mean trak"):
        CliRunner().invoke(app, ["describe", "trakk"], catch_exceptions=False, standalone_mode=False)


OWN = '''"""Methods of my own."""
from estimators import Attribution, Estimator
from pydantic import Field
from workers import Task


class Agreement(Estimator):
    """How far two examples agree."""

    needs = frozenset({"subsets"})
    power: float = Field(2.0, description="the exponent")

    def attribute(self, evidence):
        raise NotImplementedError


class Box:
    """A box of numbers."""

    n, t = 8, 2

    def __init__(self, size: int = 3, scale=(1, 2), *more, **others):
        pass

    def train(self, subset, seed):
        return 0

    def measure(self, model):
        return {}


def boxed(size: int) -> Box:
    """A box by a function."""
    raise AssertionError("is not called")


ready = Box()
'''


@pytest.mark.parametrize(
    ("name", "group", "summary", "options"),
    [
        ("Agreement", "estimator", "Methods of my own.", ["measure", "power"]),
        ("Box", "task", "A box of numbers.", ["size", "scale"]),
        ("boxed", "task", "A box by a function.", ["size"]),
        ("ready", "task", "A box of numbers.", []),
    ],
)
def test_one_s_own_file_is_told_of_by_what_it_is(
    command: Any, tmp_path: Path, name: str, group: str, summary: str, options: list[str]
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    where = f"{tmp_path / 'mine.py'}:{name}"
    ended = command("describe", where, "--json")
    assert ended.code == 0, ended.err
    assert ended.err == f"about to run the code of {tmp_path / 'mine.py'}\n"
    (told,) = json.loads(ended.out)
    assert (told["group"], told["name"], told["summary"]) == (group, where, summary)
    assert [one["name"] for one in told["options"]] == options
    assert command("describe", where).code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Agreemnt", "mine.py has no 'Agreemnt': did you mean Agreement? (known: Agreement, Box, boxed, ready)"),
        ("Field", "is no estimator and no task"),
    ],
)
def test_what_is_neither_is_one_line(command: Any, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    for where, line in ((f"mine.py:{name}", said), (f"nowhere.py:{name}", "there is no file")):
        ended = command("describe", f"{tmp_path / where}")
        assert (ended.code, ended.out) == (2, "")
        about, error = ended.err.splitlines()
        assert about == f"about to run the code of {tmp_path / where.partition(':')[0]}"
        assert error.startswith("error: ")
        assert line in error
