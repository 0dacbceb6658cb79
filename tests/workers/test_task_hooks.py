import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from workers import DifferentiableTask, Queries, Recipe, task_hooks
from workers.errors import TaskError
from workers.task_checks import check_contract

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-task.md").read_text("utf-8")
TABLE = PAGE.partition("## Optional hooks")[2].partition("\n## ")[0]
HOOKS = ("measures", "flipped", *task_hooks.METHODS)
"""Every optional hook of a task of either level."""


def bare(**hooks):
    """A black box of three examples and two queries that offers these hooks."""
    task = {"n": 3, "t": 2, "train": lambda subset, seed: None, "measure": lambda model: {}}
    return SimpleNamespace(**task, **hooks)


def test_the_page_lists_every_hook_as_it_is_called():
    rows = re.findall(r"^\| `(\w+)(?:\((.*?)\))?` \|", TABLE, flags=re.MULTILINE)
    listed = {name: tuple(arguments.split(", ")) if arguments else () for name, arguments in rows}
    assert listed.pop("representation") == ("module", "inputs")
    assert hasattr(DifferentiableTask, "representation")  # has a default, so it is no hook to look for
    assert listed == {name: task_hooks.METHODS.get(name, ()) for name in HOOKS}


def test_hooks_are_looked_for_in_one_place_only():
    names = "|".join(HOOKS)
    asked = re.compile(rf"""(get|has)attr\([\w.]*task, ["']({names})["']""")
    files = [path for package in ("workers", "estimators", "orchestrator") for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 100
    assert [path.name for path in files if asked.search(path.read_text("utf-8"))] == []
    assert asked.search('getattr(sweep.task, "label", None)')


def test_without_hooks_nothing_is_assumed():
    task = bare()
    check_contract(task, "mine")
    assert task_hooks.measures_of(task) is None
    assert task_hooks.measure_train_of(task) is None
    assert task_hooks.empty_outputs_of(task, "value") is None
    assert task_hooks.groups_of(task) == {}
    assert task_hooks.shower_of(task) is task_hooks.labeller_of(task) is None
    assert task_hooks.mislabelled(task) is None
    assert task_hooks.description_of(task) == "SimpleNamespace: 3 training examples"


def test_a_builtin_that_tells_no_arguments_is_taken_at_its_word():
    check_contract(bare(measure_empty=dict), "mine")


def test_hooks_tell_what_they_tell():
    some, ids = np.array([True, False, False]), np.array([0, 0, 1])
    task = bare(
        measures=["value"],
        measure_train=lambda model: {"value": np.full(3, model)},
        groups=lambda: {"kind": ids},
        show=lambda source, index: f"{source} {index}",
        label=lambda source, index: index,
        describe=lambda: "three examples",
        flipped=some,
    )
    check_contract(task, "mine")
    assert task_hooks.measures_of(task) == ("value",)
    assert task_hooks.measure_train_of(task)(2)["value"].tolist() == [2, 2, 2]
    assert task_hooks.groups_of(task)["kind"] is ids
    assert task_hooks.shower_of(task)("train", 1) == "train 1"
    assert task_hooks.labeller_of(task)("train", 1) == 1
    assert task_hooks.description_of(task) == "three examples"
    assert task_hooks.mislabelled(task) is some
    assert task_hooks.mislabelled(bare(flipped=np.zeros(3, dtype=bool))) is None


def test_the_outputs_of_a_model_of_no_data_are_those_of_the_chosen_queries():
    task = bare(measure_empty=lambda: {"value": np.array([0.25, 0.75]), "of_train": np.arange(3)})
    for queries, expected in ((None, [0.25, 0.75]), (Queries("task", (1,)), [0.75])):
        found = task_hooks.empty_outputs_of(task, "value", queries)
        assert found.tolist() == expected
        assert found.dtype == np.float32
    assert task_hooks.empty_outputs_of(task, "of_train", Queries("train", (2, 0))).tolist() == [2, 0]
    assert task_hooks.empty_outputs_of(task, "other") is None
    with pytest.raises(TaskError, match=r"measure_empty\(\)\['value'\] has shape \(2,\), expected \(3,\)$"):
        task_hooks.empty_outputs_of(task, "value", Queries("train"))


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"label": ["cat", "dog", "cat"]}, r"^mine: `label` must be a method label\(source, index\), found list$"),
        ({"describe": lambda short: ""}, r"^mine: `describe` must be callable as describe\(\): missing a required"),
        (
            {"measure_train": lambda a, b: {}},
            r"^mine: `measure_train` must be callable as measure_train\(model\): missing a req",
        ),
        ({"groups": {"kind": [0, 0, 1]}}, r"^mine: `groups` must be a method groups\(\), found dict$"),
        ({"measures": 3}, r"^mine: `measures` must be a sequence of names, found 3$"),
        ({"measures": "value"}, r"^mine: `measures` must be a sequence of names, found 'value'$"),
        ({"flipped": np.ones(2, dtype=bool)}, r"\.flipped: its shape is \(2,\) bool, expected \(3,\) bool$"),
        ({"flipped": np.array([0, 1, 0])}, r"\.flipped: its shape is \(3,\) int64, expected \(3,\) bool$"),
    ],
)
def test_a_hook_of_another_kind_is_refused_in_one_line(hooks, message):
    with pytest.raises(TaskError, match=message) as error:
        check_contract(bare(**hooks), "mine")
    assert "\n" not in str(error.value)


def test_group_ids_are_one_an_example():
    with pytest.raises(TaskError, match=r"groups\(\)\['kind'\] has shape \(2,\), expected \(3,\): an id an example$"):
        task_hooks.groups_of(bare(groups=lambda: {"kind": [0, 1]}))


def test_a_differentiable_task_is_held_to_its_hooks_too(blobs):
    task = blobs(Recipe())
    task.label = "the label"
    with pytest.raises(TaskError, match=r"^mine: `label` must be a method label\(source, index\), found str$"):
        check_contract(task, "mine")
