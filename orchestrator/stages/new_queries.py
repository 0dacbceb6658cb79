"""New queries, attributed from the gradients that a sweep keeps: no training example is looked at."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from estimators.gradient_based.projected import ProjectingEstimator
from estimators.kept_gradients import LackingGradients
from orchestrator.attribution.evidence import load_references, no_runs_yet
from orchestrator.attribution.gradients import GradientsToAnswerFrom, can_keep_gradients, keeps_gradients, store_of
from orchestrator.attribution.standing import stamp_of
from orchestrator.attribution.strongest import Strongest
from orchestrator.config.estimator_section import EstimatorSection
from orchestrator.scoring.ends import ends_of
from orchestrator.store.attributions import Attributes
from orchestrator.store.gradients import kept_networks
from orchestrator.store.hashes import content_hash
from orchestrator.store.paths import is_name
from orchestrator.store.query_attributions import write_query_attribution
from orchestrator.store.run_store import RunStore
from orchestrator.store.secret_names import without_secrets
from orchestrator.sweeps.examples import Examples
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record
from workers.errors import ConfigError, CounterfactoryError, DataError, StoreError, TaskError, UserError, near, one_line
from workers.task_hooks import queries_reader_of

if TYPE_CHECKING:
    from estimators.gradient_based.new_queries import NewQueries

TOP = 10
"""Examples of each end that are told of a query."""


@dataclass(frozen=True)
class Answered:
    """New queries, attributed."""

    queries: str
    """What they are called in the sweep's folder."""
    estimator: str
    """Its label in the configuration."""
    measure: str
    count: int
    """How many queries."""
    models: int
    """Reference models."""
    seconds: float
    """Between the queries and their attribution on the disk."""
    top: pd.DataFrame
    """The strongest examples of every query: columns query, effect, example, label, value, text."""


def attribute_new_queries(
    sweep: Sweep,
    store: RunStore,
    file: Path,
    *,
    estimator: str | None = None,
    measure: str | None = None,
    top: int = TOP,
    name: str | None = None,
    before_task: Callable[[], object] = lambda: None,
) -> Answered:
    """Attribute the queries in a file, keep their attribution under `name` (by default the file's), and return the strongest.

    `estimator` is the label of one that keeps its gradients, by default the only one; `measure` is by default the one that it
    attributes. The task is built, for its model and to read the file; `before_task` is called before that. Raises UserError, one
    line, for a file that cannot be read, gradients that are not kept, damaged or of something else.
    """
    label = _label(sweep, estimator)
    section = sweep.config.estimators[label]
    called = _name(file, name)
    if top < 0:
        raise ConfigError(f"top {top}: expected how many examples of each end to return, at least 0")
    _refuse_missing(sweep, label, section)
    before_task()
    measure = measure or section.measure or sweep.config.measures[0]
    batch, digest = _read(sweep, file)
    started = time.perf_counter()
    found = _answers(sweep, store, label, measure, batch, file)
    strongest = Strongest(found.q, top), Strongest(found.q, top)

    def blocks() -> Iterator[NDArray[np.float32]]:
        with _remedy(sweep, label):
            for where, block in found.blocks():
                for one, signed in zip(strongest, (block, -block), strict=True):
                    one.add(where.start, signed)
                yield block

    attributes = _attributes(section, measure, found.models, {"file": file.name, "content_hash": digest})
    write_query_attribution(sweep.paths, called, label, attributes, (found.n, found.q), blocks())
    seconds = time.perf_counter() - started
    table = _table(sweep, measure, strongest, found.q)
    return Answered(called, label, measure, found.q, found.models, seconds, table)


def _label(sweep: Sweep, asked: str | None) -> str:
    """Return the label of the estimator to ask. Raises ConfigError where there is none, or several and none is named."""
    sections = sweep.config.estimators
    if asked is not None:
        if asked not in sections:
            raise ConfigError(f"{sweep.paths.root} has no estimator {asked!r}: {near(asked, list(sections))}")
        return asked
    keeping = [label for label, section in sections.items() if keeps_gradients(section)]
    if len(keeping) == 1:
        return keeping[0]
    able = [label for label, section in sections.items() if can_keep_gradients(section)]
    if keeping:
        raise ConfigError(f"--estimator: several keep their gradients, name one: {', '.join(keeping)}")
    if able:
        raise ConfigError(f"{sweep.paths.root}: {_how_to_keep(sweep, able[0])}")
    raise ConfigError(
        f"{sweep.paths.root}: has no estimator that keeps gradients: `counterfactory run CONFIG estimators.logra.store=true "
        f"--out {sweep.paths.root}` adds one"
    )


def _how_to_keep(sweep: Sweep, label: str) -> str:
    return (
        f"keeps no gradients of {label}: `counterfactory run CONFIG estimators.{label}.store=true --out {sweep.paths.root}` "
        "does, with the sweep's configuration"
    )


def _refuse_missing(sweep: Sweep, label: str, section: EstimatorSection) -> None:
    """Raise ConfigError or StoreError where an estimator has nothing to answer from, with what makes it."""
    root = sweep.paths.root
    if not can_keep_gradients(section):
        able = [other for other, one in sweep.config.estimators.items() if can_keep_gradients(one)]
        raise ConfigError(
            f"--estimator: {label!r} cannot keep gradients, so it answers no new queries; those that can: "
            f"{', '.join(able) or 'none of this sweep, such as logra'}"
        )
    if not keeps_gradients(section):
        raise ConfigError(f"{root}: {_how_to_keep(sweep, label)}")
    if not kept_networks(sweep.paths, store_of(sweep.config, label)):
        raise StoreError(f"{root}: keeps no gradients of {label} yet: `counterfactory attribute {root}` makes them")


def _name(file: Path, name: str | None) -> str:
    """Return what the queries are called. Raises ConfigError for what cannot name a folder, DataError for no file."""
    if not file.is_file():
        raise DataError(f"{file}: there is no such file of queries")
    called = re.sub(r"[^\w.-]", "_", file.name.partition(".")[0]) if name is None else name
    if not is_name(called):
        raise ConfigError(f"--name: {called!r} cannot name a folder: use letters, digits, '_', '-' and '.'")
    return called


def _read(sweep: Sweep, file: Path) -> tuple[Any, str]:
    """Return the queries as a batch, and a hash of the file. Raises DataError, one line, where the task cannot read it."""
    from workers.data.new_queries import checked
    from workers.own_training import gradient_task

    task = gradient_task(sweep.task)
    if task is None:
        raise TaskError(f"the task {sweep.config.task.name!r} is a black box: it has no gradients of new queries")
    try:
        batch = (queries_reader_of(sweep.task) or task.read_queries)(file)
    except UserError:
        raise
    except Exception as error:
        raise DataError(f"{file}: the task's read_queries(path) failed: {one_line(error)}") from error
    return checked(batch, task.examples("task"), file), content_hash(file.read_bytes())


def _answers(sweep: Sweep, store: RunStore, label: str, measure: str, batch: Any, file: Path) -> NewQueries:
    from estimators.gradient_based.new_queries import new_queries

    options = sweep.config.estimators[label].options
    assert isinstance(options, ProjectingEstimator)
    evidence = replace(
        no_runs_yet(sweep, measure),
        references=load_references(sweep, store),
        gradients=GradientsToAnswerFrom(sweep.paths, store_of(sweep.config, label)),
    )
    with _remedy(sweep, label):
        try:
            return new_queries(options, evidence, batch)
        except CounterfactoryError:
            raise
        except Exception as error:
            raise DataError(f"{file}: the queries cannot be differentiated: {one_line(error)}") from error


@contextmanager
def _remedy(sweep: Sweep, label: str) -> Iterator[None]:
    """Add to what is said of kept gradients that cannot be used how they are made anew."""
    root, name = sweep.paths.root, store_of(sweep.config, label)
    try:
        yield
    except LackingGradients as error:
        raise StoreError(f"{root}: {error}: `counterfactory attribute {root}` makes the rest") from error
    except StoreError as error:
        folder = sweep.paths.estimator_gradients(name)
        raise StoreError(f"{error}: remove {folder}, and `counterfactory attribute {root}` makes it anew") from error


def _attributes(section: EstimatorSection, measure: str, models: int, queries: Mapping[str, str]) -> Attributes:
    return Attributes(
        estimator=section.estimator,
        claims_units=section.options.claims_units,
        options=without_secrets(section.options.model_dump(mode="json"))[0],
        measure=measure,
        needs=tuple(sorted(section.options.needed)),
        models=models,
        stamp=stamp_of(section, measure),
        details={"queries": dict(queries)},
    )


def _table(sweep: Sweep, measure: str, strongest: tuple[Strongest, Strongest], count: int) -> pd.DataFrame:
    """Return the strongest examples of both ends, as `OpenedSweep.top` does; those without effect are left out."""
    examples = read_record(sweep).examples
    names, sign = ends_of(sweep.config, measure)
    raising, lowering = strongest
    ends = ((names[0], sign), (names[1], -sign))
    rows: list[dict[str, Any]] = []
    for query in range(count):
        for effect, side in ends:
            indices, values = (raising if side == 1 else lowering).of(query)
            rows += [
                {
                    "query": query,
                    "effect": effect,
                    "example": int(example),
                    "label": examples.labels.get(("train", int(example))),
                    "value": side * float(value),
                    "text": _text(examples, int(example)),
                }
                for example, value in zip(indices, values, strict=True)
                if value > 0
            ]
    return pd.DataFrame(rows, columns=["query", "effect", "example", "label", "value", "text"])


def _text(examples: Examples, example: int) -> str | None:
    """Return the text that the report shows of a training example, where it is one."""
    shown = None if examples.show is None else examples.show("train", example)
    return shown if isinstance(shown, str) else None
