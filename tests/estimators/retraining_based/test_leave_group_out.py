"""Leave-group-out effects against literal means."""

import dataclasses

import numpy as np
import pytest

from estimators.evidence import Evidence
from estimators.registry import find
from estimators.retraining_based.leave_group_out import Groups, group_effects
from estimators.values.query_classes import query_classes
from workers.errors import DataError
from workers.runs import Queries

LABELS = np.array([2, 0, 2, 1, 1, 2])


def sweep(game, runs_of, seeds=3, name="airport", noise=0.4, labels=LABELS):
    task = game(name, len(labels), noise)
    out = runs_of(task, "leave_group_out", [labels != g for g in np.unique(labels)], seeds, 10)
    full = runs_of(task, "full", np.ones((1, len(labels))), seeds, 500)
    return task, out, full


@pytest.mark.parametrize("share", ["example", "group"])
def test_equals_literal_means(game, runs_of, evidence_with, share):
    task, out, full = sweep(game, runs_of)
    found = find("groups")(share=share).attribute(evidence_with(task, out, full))
    whole = full.outputs.astype(float)
    for i, label in enumerate(LABELS):
        differences = whole - out.outputs[~out.masks[:, i]].astype(float)
        divide = (label == LABELS).sum() if share == "example" else 1
        np.testing.assert_allclose(found.values[i], differences.mean(0) / divide, rtol=1e-5)
        error = differences.std(0, ddof=1) / np.sqrt(3) / divide
        np.testing.assert_allclose(found.standard_error[i], error, rtol=1e-4)
        np.testing.assert_allclose(found.utility[i], differences.mean() / divide, rtol=1e-5)
        error = differences.mean(1).std(ddof=1) / np.sqrt(3) / divide
        np.testing.assert_allclose(found.utility_standard_error[i], error, rtol=1e-4)
    each = [(whole - out.outputs[out.masks[:, i] == 0].astype(float)).std(0, ddof=1) / np.sqrt(3) for i in (0, 1, 3)]
    np.testing.assert_allclose(found.findings.group_error, np.mean(each), rtol=1e-5)
    assert found.degrees_of_freedom == 2
    assert found.models == 12


def test_the_table_tells_whole_effects_in_order_of_first_examples(game, runs_of, evidence_with):
    task, out, full = sweep(game, runs_of, seeds=1, name="additive", noise=0)
    found = Groups().attribute(evidence_with(task, out, full))
    rows = found.findings.groups
    assert [(row.first_example, row.size) for row in rows] == [(0, 3), (1, 1), (3, 2)]
    assert np.isnan([row.standard_error for row in rows]).all()
    worth = 0.5 * np.arange(6) - 0.7
    effects = [worth[label == LABELS].sum() for label in (2, 0, 1)]
    np.testing.assert_allclose([row.effect for row in rows], np.multiply(effects, 1.5), atol=1e-6)
    np.testing.assert_allclose([found.values[label == LABELS, 0].sum() for label in (2, 0, 1)], effects, atol=1e-6)
    assert found.standard_error is None
    assert found.utility_standard_error is None
    assert np.isnan(found.findings.group_error)
    assert group_effects(out, full).group.tolist() == [0, 1, 0, 2, 2, 0]


def test_runs_that_do_not_leave_out_one_group_are_refused(game, runs_of):
    _, out, full = sweep(game, runs_of)
    fewer = dataclasses.replace(
        out, **{key: getattr(out, key)[3:] for key in ("masks", "outputs", "subsets", "repeats")}
    )
    with pytest.raises(DataError, match="of 6 examples its runs leave out 1 never and 0 in more"):
        group_effects(fewer, full)
    torn = dataclasses.replace(out, masks=out.masks.copy())
    torn.masks[1, 3] = False
    torn.masks[4, 2] = False
    with pytest.raises(DataError, match="leave out 0 never and 4 in more than one group"):
        group_effects(torn, full)
    nothing = dataclasses.replace(out, masks=out.masks.copy())
    nothing.masks[1] = True
    with pytest.raises(DataError, match="and no run of all examples"):
        group_effects(nothing, full)


def test_effects_by_class_equal_literal_means(game, runs_of, evidence_with):
    task, out, full = sweep(game, runs_of)
    rng = np.random.default_rng(3)
    names = ["10", "two", "9", "two", "9", "9", "10"]
    wider = [
        dataclasses.replace(one, outputs=rng.normal(size=(len(one.outputs), 7)).astype("f")) for one in (out, full)
    ]
    given = dataclasses.replace(evidence_with(task, *wider), t=7, label=lambda _, q: names[q])
    told = Groups().attribute(given).findings.class_effects
    assert told.classes == ("9", "10", "two")
    for row, left_out in enumerate((2, 0, 1)):  # in the order of first examples
        without = wider[0].outputs[~out.masks[:, np.flatnonzero(left_out == LABELS)[0]]]
        for column, name in enumerate(told.classes):
            own = np.array(names) == name
            differences = wider[1].outputs[:, own].mean(1, dtype=float) - without[:, own].mean(1, dtype=float)
            assert told.effects[row, column] == pytest.approx(differences.mean(), abs=1e-6)
            error = differences.std(ddof=1) / np.sqrt(len(differences))
            assert told.standard_errors[row, column] == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize(
    ("names", "source"), [(["a"] * 4, "task"), (["a", "b", "c", "b"], "task"), (["a", "a", "b", "b"], "train")]
)
def test_queries_without_classes_have_no_table(game, names, source):
    label = lambda _, q: names[q]  # noqa: E731
    assert query_classes(Evidence(3, 4, "worth", label=label, queries=Queries(source))) is None
    assert query_classes(Evidence(3, 4, "worth", task=game("additive", 3))) is None
