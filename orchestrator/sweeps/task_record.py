"""What stages must know of a task when nothing is trained, kept with the sweep: to look at it is to run none of its code.

`task.json` has what it tells of itself; `examples.parquet` what it tells of its examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.store.durable import refusing, write_atomically
from orchestrator.store.plain_files import is_there, read_plain
from orchestrator.sweeps.examples import Examples, keep_examples
from orchestrator.sweeps.sweep import Sweep, empty_outputs
from workers.errors import StoreError
from workers.task_hooks import description_of


class _Kept(BaseModel):
    """`task.json`."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    description: str
    empty: dict[str, tuple[float, ...]] = {}


@dataclass(frozen=True)
class TaskRecord:
    """What a sweep keeps of its task."""

    description: str
    """The task in one line."""
    examples: Examples
    """What it tells of its examples: labels, pictures, texts, which are mislabelled."""
    missing: str = ""
    """Where the folder keeps no such record: which command writes it, in one line."""
    _empty: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def empty_outputs(self, measure: str) -> NDArray[np.float32] | None:
        """Return the outputs (t,) of a model of no data, where the task tells them (`measure_empty`)."""
        return np.array(self._empty[measure], dtype=np.float32) if measure in self._empty else None


def keep_record(sweep: Sweep, *, again: bool = False) -> None:
    """Write down what the task tells, unless it is there already and is not to be written `again`."""
    if sweep.paths.task.exists() and not again:
        if not sweep.paths.examples.exists():
            keep_examples(sweep)
        return
    keep_examples(sweep)
    outputs = {measure: empty_outputs(sweep, measure) for measure in sweep.config.measures}
    empty = {measure: tuple(values.tolist()) for measure, values in outputs.items() if values is not None}
    kept = _Kept(description=description_of(sweep.task), empty=empty)
    # Last: while it is not there, nothing counts as kept.
    write_atomically(sweep.paths.task, json.dumps(kept.model_dump(), ensure_ascii=False, indent=1).encode())


def read_record(sweep: Sweep) -> TaskRecord:
    """Return what the sweep keeps of its task. Raises StoreError for a damaged record."""
    path, root = sweep.paths.task, sweep.paths.root
    examples = Examples(sweep.paths.examples)
    name = sweep.config.task.name
    # Without a record nobody knows what its runs were trained under, and to go on is to accept that.
    flag = "" if sweep.paths.provenance.exists() else " --accept-changes"
    if not is_there(path):
        # Of runs that were imported there is nothing to tell, and nobody could be asked.
        missing = (
            ""
            if name == "imported"
            else (
                f"{root}: keeps no {path.name}, so no labels, pictures and mislabelled examples of its task {name!r}: "
                f"`counterfactory retrain {root}{flag}` writes them, and runs the task's code for that"
            )
        )
        return TaskRecord(name, examples, missing)
    with refusing("read", path):
        content = read_plain(path)
    try:
        kept = _Kept.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(f"{path} is damaged: delete it, and `counterfactory retrain {root}` writes it anew") from error
    return TaskRecord(kept.description, examples, "", kept.empty)
