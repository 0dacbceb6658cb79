"""Leave-one-class-out effects as a table: a row a group that was left out, a column a class of queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from estimators.findings import Findings
from orchestrator.report import text
from orchestrator.report.data import ClassTable
from orchestrator.sweeps.examples import Examples
from orchestrator.sweeps.sweep import Sweep

WIDEST = 12
"""Classes of which a table still fits on a terminal; a report shows any number."""


def class_table(
    sweep: Sweep, examples: Examples, label: str, measure: str, fitted_on: Sequence[str], findings: Findings
) -> ClassTable | None:
    """Return the table of the attribution `label`, fitted on some designs' runs; None when its findings hold none."""
    found = findings.class_effects
    if found is None:
        return None
    names = [group_name(sweep, examples, fitted_on, one.first_example) for one in findings.groups]
    classes = found.classes
    order = sorted(range(len(names)), key=lambda row: classes.index(names[row]) if names[row] in classes else row)
    names_in_order = tuple(names[row] for row in order)
    return ClassTable(label, measure, names_in_order, classes, found.effects[order], found.standard_errors[order])


def group_name(sweep: Sweep, examples: Examples, designs: Sequence[str], first: int) -> str:
    """Return the label of the group left out by one of the designs, where groups are classes that the task names; else its
    first example."""
    by = {sweep.config.designs[name].grouped_by for name in designs if name in sweep.config.designs}
    wrong = examples.mislabelled
    label = examples.labels.get(("train", first)) if "label" in by and (wrong is None or not wrong[first]) else None
    return f"of example {first}" if label is None else label


def lines(table: ClassTable) -> Iterator[str]:
    """Yield the table for a terminal, each effect with its standard error; nothing where it is too wide."""
    if len(table.classes) > WIDEST:
        return
    cells = [
        [
            f"{text.decimal(effect, table.digits)} ±{text.decimal(error, table.digits)}"
            for effect, error in zip(*row, strict=True)
        ]
        for row in zip(table.effects, table.standard_errors, strict=True)
    ]
    wide = [max(map(len, column)) for column in zip(table.classes, *cells, strict=True)]
    first = max(map(len, ("without", *table.groups)))
    yield f"effect of including a class on the {table.measure} of each class of queries, ± standard error:"
    for name, row in zip(("without", *table.groups), (table.classes, *cells), strict=True):
        yield "  ".join([name.rjust(first), *(cell.rjust(width) for cell, width in zip(row, wide, strict=True))])
