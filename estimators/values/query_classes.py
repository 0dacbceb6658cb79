"""Which class every query belongs to, so that effects can be told by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from estimators.evidence import Evidence, Runs

MOST_CLASSES = 100


def query_classes(evidence: Evidence) -> list[str] | None:
    """Return the class name of every query (t,), as the task's `label` names it.

    None where the task names none, where queries are training examples (whose labels may be wrong on purpose), and where the
    names are no classes: all alike, or so many that most have a single query.
    """
    label = evidence.label
    if label is None or evidence.queries.source != "task":
        return None
    names = [str(label("task", int(query))) for query in evidence.queries.take(evidence.t)]
    classes = len(set(names))
    return names if 2 <= classes <= min(MOST_CLASSES, evidence.t // 2) else None


def in_order(names: Sequence[str]) -> list[str]:
    """Return the different names, numbers by their size and before words."""
    return sorted(set(names), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def class_runs(runs: Runs, names: Sequence[str], classes: Sequence[str]) -> Runs:
    """Return the same runs with one output a class, the mean over its queries: outputs (m, c)."""
    own = np.array(names)
    means = [runs.outputs[:, own == name].mean(axis=1, dtype=np.float64) for name in classes]
    return runs.with_outputs(np.stack(means, axis=1).astype(np.float32))
