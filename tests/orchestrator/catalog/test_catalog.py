"""What there is to choose from is what the code has, and all of it explains itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from estimators.contract import Attribution, Estimator
from estimators.evidence import Evidence
from estimators.registry import BUILT_IN as ESTIMATORS
from estimators.registry import find
from orchestrator.catalog import estimators, tasks
from orchestrator.catalog.page import page, recipe_page
from orchestrator.catalog.registry import GROUPS, Group, group, named
from orchestrator.designs.registry import kinds
from workers.errors import ConfigError
from workers.loading import BUILT_IN as TASKS
from workers.loading import TaskSpec, build_task
from workers.recipe import Recipe
from workers.task import DifferentiableTask

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("name", list(GROUPS))
def test_the_page_is_what_the_code_says(name: str) -> None:
    written = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert written == page(name.capitalize(), GROUPS[name]), "`make pages` writes it anew"


def test_the_recipes_page_is_what_the_code_says() -> None:
    written = (DOCS / "recipe.md").read_text(encoding="utf-8")
    assert written == recipe_page(), "`make pages` writes it anew"
    for name, field in Recipe.model_fields.items():
        assert f"| `{name}` |" in written
        assert field.description, f"{name} is described"


@pytest.mark.parametrize(("name", "expected"), [("estimators", ESTIMATORS), ("designs", kinds()), ("tasks", TASKS)])
def test_a_group_has_all_of_them(name: str, expected: tuple[str, ...]) -> None:
    assert set(group(name).names()) >= set(expected)


@pytest.mark.parametrize(
    ("one", "name"),
    [pytest.param(one, name, id=f"{one.word} {name}") for one in GROUPS.values() for name in one.names()],
)
def test_everything_is_told_in_a_sentence_with_all_its_options(one: Group, name: str) -> None:
    entry = one.entry(name)
    assert entry.name == name
    assert entry.summary.endswith(".")
    assert entry.summary == one.summary(name)
    assert all(answer for _, answer in entry.facts)
    assert not [option.name for option in entry.options if not option.about], "every option says what it means"
    assert ">>>" not in "".join(entry.text)


def test_options_are_those_that_validate() -> None:
    for name in ESTIMATORS:
        told = [option.name for option in estimators.entry(name).options]
        assert told == ["measure", *find(name).model_fields]


def test_the_arguments_of_a_task_are_those_it_takes() -> None:
    digits = tasks.entry("digits")
    assert [option.name for option in digits.options][:3] == ["n", "t", "split_seed"]
    assert isinstance(build_task(TaskSpec("digits", {"n": 20, "t": 5, "hidden": 2})), DifferentiableTask)
    assert dict(digits.facts)["gradients"].startswith("yes")
    assert dict(tasks.entry("sklearn").facts)["gradients"].startswith("no")
    assert dict(tasks.entry("tabular").facts)["gradients"].startswith("yes")


def test_a_name_may_be_two_things() -> None:
    assert [one.word for one, _ in named("leave_one_out")] == ["estimator", "design"]
    assert [one.word for one, _ in named("imported")] == ["design", "task"]


def test_designs_and_estimators_agree_on_who_serves_whom() -> None:
    served = {name: dict(group("designs").entry(name).facts)["serves"] for name in kinds()}
    for name in ESTIMATORS:
        designs = re.findall(r"`(\w+)`", dict(estimators.entry(name).facts)["designs"])
        assert set(designs) == {kind for kind, names in served.items() if f"`{name}`" in names}


def test_what_options_ask_for_besides_is_told() -> None:
    said = {name: dict(estimators.entry(name).facts)["needs"] for name in ("knn_shapley", "leave_one_out", "random")}
    assert said["knn_shapley"].endswith("more with some options")
    assert said["leave_one_out"] == "leave-one-out runs, runs on the full set"
    assert said["random"] == "nothing but the task"


def test_units_are_told_as_the_estimator_claims_them() -> None:
    said = {name: dict(estimators.entry(name).facts)["units"] for name in ("datamodel", "tracin", "random")}
    assert said["datamodel"] == "those of the measure"
    assert "some options" in said["tracin"]
    assert said["random"].startswith("its own")


@pytest.mark.parametrize("look", [named, tasks.entry])
def test_an_unknown_name_is_one_line_with_near_ones(look) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"'digitz': did you mean digits"):
        look("digitz")


def test_an_unknown_list_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"no list of 'estimator': did you mean estimators"):
        group("estimator")


def test_a_package_s_estimator_is_told_like_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Estimator):
        """Half of everything.

        A second paragraph.

        >>> 1 + 1
        2
        """

        def attribute(self, evidence: Evidence) -> Attribution:
            raise NotImplementedError

    monkeypatch.setattr(estimators, "find", lambda name: Mine)
    entry = estimators.entry("mine")
    assert entry.summary == (__doc__ or "").strip(), "what its file says"
    assert entry.text == ("Half of everything.", "A second paragraph.")
    assert dict(entry.facts) == {
        "needs": "nothing but the task",
        "designs": "none",
        "units": "its own: only order and ratios count",
    }
