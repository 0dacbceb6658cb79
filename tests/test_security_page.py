"""What SECURITY.md claims is so, as far as code can say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_group

from orchestrator.cli.main import app
from orchestrator.config.loading import load
from orchestrator.execution.environment import PASSED
from orchestrator.execution.ray_session import LOOPBACK
from orchestrator.store.durable import PRIVATE
from orchestrator.store.secret_names import HARMLESS, KEYS, SECRET

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
KEPT = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")


def rows() -> dict[str, list[str]]:
    """Return the commands of each row of the table, by what the row says."""
    found: dict[str, list[str]] = {}
    for names, said in re.findall(r"^\| (`.*?) \| (.*) \|$", PAGE, re.M):
        found.setdefault(said, []).extend(re.findall(r"`(.*?)`", names))
    return found


def test_every_command_is_in_the_table_once() -> None:
    known = set(get_group(app).commands)
    said = [name for names in rows().values() for name in names]
    assert sorted(said) == sorted(known | {"verify --rerun"})


def test_what_is_said_to_run_nothing_is_tried() -> None:
    """tests/orchestrator/test_nothing_runs.py runs these on a sweep that names a stranger's code."""
    tried = (ROOT / "tests" / "orchestrator" / "test_nothing_runs.py").read_text(encoding="utf-8")
    looked = set(re.findall(r'\("(\w+)", "DIR"', tried.partition("def test_no_command_that_looks")[0]))
    never = set(rows()["never"]) - {
        "import",
        "init",
        "schema",
        "configs",
        "list",
        "describe",
    }  # they are given no sweep
    assert looked == never | {"attribute"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_page_is_linked(name: str) -> None:
    assert "(SECURITY.md)" in (ROOT / name).read_text(encoding="utf-8")


def test_numbers_and_names_are_those_of_the_code() -> None:
    assert f"all of its ports are on {LOOPBACK}" in PAGE
    assert f"mode {PRIVATE:04o}" in PAGE
    assert f"mode {PRIVATE:04o}" in KEPT
    config = load("digits", [("ray.environment", ["AWS_*"])])
    assert config.ray.environment == ("AWS_*",)
    assert load("digits").ray.environment == ()
    assert config.identity() == load("digits").identity()
    assert not {"*", "AWS_*", "HF_*", "GIT*"} & set(PASSED)


def test_the_documented_names_of_secrets_are_those_of_the_code() -> None:
    part = KEPT.partition("What looks like a secret is not kept.")[2].partition("Such a value")[0]
    said = set(re.findall(r"`(\w+)`", part)) - {"pad_token", "key"}
    singular = {word for word in SECRET if f"{word}s" in SECRET or word[:-1] not in SECRET}
    assert said == singular | KEYS
    assert "pad" in HARMLESS


def test_there_is_a_way_to_report() -> None:
    assert "private security advisory of the repository" in PAGE
    assert not re.search(r"[\w.]+@[\w.]+\.\w+|https?://", PAGE)
