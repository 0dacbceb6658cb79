"""`list` and `describe`: every estimator, design and task, in tables and as JSON."""

from __future__ import annotations

import json

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
