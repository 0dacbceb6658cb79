from collections.abc import Callable
from typing import Any

import numpy as np

from estimators.findings import ClassEffects, Findings, GroupEffect
from orchestrator.report.class_effects import WIDEST, class_table, lines
from orchestrator.report.data import ClassTable
from orchestrator.sweeps.examples import Examples, keep_examples

FITTED_ON = ("classless", "everything")
EFFECTS = ClassEffects(("0", "1"), np.array([[0.5, 2.0], [3.0, -0.25]]), np.array([[0.1, np.nan], [1, 2]]))


def table(classes: int) -> ClassTable:
    names = tuple(f"class {k}" for k in range(classes))
    return ClassTable("groups", "margin", names, names, np.eye(classes), np.full((classes, classes), 0.25))


def test_rows_are_named_and_ordered_as_columns(make_sweep: Callable[[Any], Any]) -> None:
    arguments = {"n": 60, "t": 8, "model": "logistic"}
    designs = {"everything": {"kind": "full"}, "classless": {"kind": "leave_group_out", "by": "label"}}
    sweep = make_sweep({"task": {"name": "digits", "arguments": arguments}, "measures": ["margin"], "designs": designs})
    keep_examples(sweep)
    examples = Examples(sweep.paths.examples)
    labels = sweep.task.train_targets.numpy()
    groups = tuple(GroupEffect(int(np.argmax(labels == label)), 6, 0.5, np.nan) for label in (1, 0))
    made = class_table(sweep, examples, "groups", "margin", FITTED_ON, Findings(groups=groups, class_effects=EFFECTS))
    assert made is not None
    assert made.groups == made.classes == ("0", "1")
    assert made.effects.tolist() == [[3.0, -0.25], [0.5, 2.0]]
    assert np.isnan(made.standard_errors).tolist() == [[False, False], [False, True]]
    assert class_table(sweep, examples, "groups", "margin", FITTED_ON, Findings(groups=groups)) is None


def test_a_terminal_gets_aligned_columns() -> None:
    first, head, *rows = lines(table(2))
    assert "including a class on the margin" in first
    assert head.split() == ["without", "class", "0", "class", "1"]
    assert [row.split()[2:] for row in rows] == [["1.00", "±0.25", "0.00", "±0.25"], ["0.00", "±0.25", "1.00", "±0.25"]]
    assert len({len(line) for line in (head, *rows)}) == 1


def test_what_no_terminal_is_wide_enough_for_is_left_to_the_report() -> None:
    assert list(lines(table(WIDEST)))
    assert not list(lines(table(WIDEST + 1)))
