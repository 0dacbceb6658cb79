"""The labels of examples and queries, kept with the sweep: whoever looks at it later needs no task, and runs none of its code.

`labels.parquet` has a row an example: `source` (train or task), `index`, `label`. There is none where the task names no labels.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from orchestrator.store.durable import refusing, write_atomically
from orchestrator.store.paths import SweepPaths
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError, TaskError
from workers.task_hooks import labeller_of


def keep_labels(sweep: Sweep) -> None:
    """Write the labels that the task gives its training examples and queries, unless they are kept already."""
    label = labeller_of(sweep.task)
    if label is None or sweep.paths.labels.exists():
        return
    import pandas as pd

    sources = (("train", sweep.task.n), ("task", sweep.task.t))
    named = [(source, i, _named(label, source, i)) for source, count in sources for i in range(count)]
    buffer = io.BytesIO()
    pd.DataFrame(named, columns=["source", "index", "label"]).to_parquet(buffer, index=False)
    write_atomically(sweep.paths.labels, buffer.getvalue())


def _named(label: Callable[[str, int], str], source: str, index: int) -> str:
    try:
        return str(label(source, index))
    except Exception as error:
        raise TaskError(f"the task's label({source!r}, {index}) failed: {type(error).__name__}: {error}") from error


def read_labels(paths: SweepPaths) -> dict[tuple[str, int], str]:
    """Return the labels by (source, index); none where the sweep keeps none. Raises StoreError for a damaged file."""
    if not paths.labels.is_file():
        return {}
    import pandas as pd

    with refusing("read", paths.labels):
        content = paths.labels.read_bytes()
    try:
        table = pd.read_parquet(io.BytesIO(content), columns=["source", "index", "label"])
    except (ValueError, OSError, KeyError) as error:
        raise StoreError(f"{paths.labels} is damaged: delete it, and `counterfactory run` writes it anew") from error
    return {(source, int(i)): label for source, i, label in table.itertuples(index=False)}
