"""A sweep: a configuration, its task and its folder, checked before anything is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import yaml_format
from orchestrator.config.loading import read, validate
from orchestrator.config.schema import Config
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import is_plain, text_of
from orchestrator.sweeps.absent import absent, with_absent_kinds
from orchestrator.sweeps.data_hash import data_hash
from orchestrator.sweeps.plan import DesignPlan, kept_packs, plan_designs
from orchestrator.sweeps.seals import seal_of
from workers.data.shared import Arrays, SharedArrays
from workers.errors import ConfigError, StoreError
from workers.runs import Queries
from workers.task_hooks import empty_outputs_of

if TYPE_CHECKING:
    from workers.loading import TaskSpec
    from workers.task import DifferentiableTask, Task


@dataclass
class TaskInMemory:
    """A task that is built when it is first asked for, once for all sweeps that share it."""

    checked: list[Config] = field(default_factory=list)
    """Configurations whose estimators and scores were found to fit the task: nothing is checked twice in a command."""
    arrays: SharedArrays = field(default_factory=SharedArrays)
    """The data sets that the task was built from, as it found them."""
    data_hash: str | None = None
    """Of its data, once somebody has asked."""
    state_bytes: dict[str, int] | None = None
    """Of its module's parameters and buffers, by name, once somebody has asked."""
    _task: Task | DifferentiableTask | None = None

    def get(self, build: Callable[[], Task | DifferentiableTask]) -> Task | DifferentiableTask:
        """Return the task, from `build` if nobody has asked for it yet."""
        if self._task is None:
            self._task = build()
        return self._task


@dataclass(frozen=True)
class Sweep:
    """Everything the stages share."""

    config: Config
    paths: SweepPaths
    in_memory: TaskInMemory = field(default_factory=TaskInMemory, repr=False, compare=False)
    """Where its task is, once built; a sweep made of this one shares it."""
    left_out: tuple[str, ...] = ()
    """Keys that its folder does not keep, because they look like secrets: here they are missing."""
    seal: str = ""
    """Seal of its own estimators' code, as its folder keeps it; see `own_estimators`."""

    @classmethod
    def of(cls, config: Config, out: Path | None = None) -> Sweep:
        """Return the sweep of a configuration, in the folder `out` (by default runs/<name>)."""
        return cls(config, SweepPaths((out or Path("runs") / config.name).resolve()))

    @classmethod
    def at(cls, folder: Path, *, edited: bool = False) -> Sweep:
        """Return the sweep that a folder holds. Raises StoreError when it holds none, or when its configuration was edited.

        With `edited` it may have been. Nothing that it names need be installed; one that is to go on is asked `with_options`.
        """
        paths = SweepPaths(folder.resolve())
        if folder.is_file():
            likely = Path("runs") / folder.stem
            example = f", such as {likely}" if (likely / paths.config.name).is_file() else ""
            raise StoreError(
                f"{folder}: is a file, expected the folder of a sweep{example}; `counterfactory run CONFIG` makes one"
            )
        if not is_plain(paths.config):
            raise StoreError(
                f"{folder}: is not a sweep (it has no {paths.config.name}); `counterfactory run` makes one"
            )
        raw = read(paths.config, text_of)
        written = raw.pop("content_hash", None)
        raw.pop("hash", None)
        seal = str(raw.pop("seal", None) or "")
        left_out = tuple(map(str, raw.pop("left_out", None) or ()))
        if written is not None and written != content_hash(raw) and not edited:
            raise StoreError(
                f"{paths.config}: was edited since the sweep was made (its hash is {content_hash(raw)}, not {written}); put "
                f"it back, or go on with what it says by `counterfactory attribute {folder} --accept-changes`"
            )
        config = with_absent_kinds(validate(raw, str(paths.config), options=False), paths)
        return cls(config, paths, left_out=left_out, seal=seal)

    def with_options(self) -> Sweep:
        """Return this sweep, read from its folder, with its estimators' options checked: what one needs that is to go on.

        The code of its own estimators is run. Raises ConfigError, one line, for the first thing that is wrong or not here.
        """
        for key, why in absent(self.config, self.paths).items():
            go_on = f"or go on by `counterfactory run CONFIG --out {self.paths.root}` with a configuration that does not name it"
            raise ConfigError(
                f"{self.paths.config}: {key}: {why}{', ' + go_on if key.startswith('estimators.') else ''}"
            )
        self._refuse_left_out("estimators.")
        for label, section in self.config.estimators.items():
            try:
                _ = section.options
            except ConfigError as error:
                raise ConfigError(f"{self.paths.config}: estimators.{label}: {error}") from error
        return self

    def own_estimators(self) -> dict[str, Any]:
        """Return which code its own estimators are, and what a seal of it is of; empty where it has none."""
        own = {section.code for section in self.config.estimators.values() if section.is_own}
        return {"root": str(self.paths.root), "code": sorted(own)} if own else {}

    def _refuse_left_out(self, section: str) -> None:
        """Raise ConfigError where something is missing that the folder does not keep."""
        missing = [key for key in self.left_out if key.startswith(section)]
        if missing:
            raise ConfigError(
                f"{self.paths.config}: leaves out {', '.join(missing)}, for it looks like a secret; go on by `counterfactory "
                f"run CONFIG --out {self.paths.root}`, with a configuration that has it"
            )

    def with_pack(self, pack: int) -> Sweep:
        """Return this sweep with packs of so many runs; the task comes along."""
        return replace(self, config=self.config.model_copy(update={"pack": pack}))

    def sharing_task_of(self, other: Sweep) -> Sweep:
        """Return this sweep with the task of another one, which is built once for both."""
        return replace(self, in_memory=other.in_memory)

    @property
    def spec(self) -> TaskSpec:
        """How a worker builds the task."""
        from workers import loading

        arguments = dict(self.config.task.arguments)
        if self.config.task.name in loading.BUILT_IN and isinstance(arguments.get("path"), str):
            # Found here, once: a worker has another working directory.
            arguments["path"] = str(loading.find_data(arguments["path"], self.config.folder))
        return loading.TaskSpec(self.config.task.name, arguments, str(self.config.folder))

    @property
    def queries(self) -> Queries:
        """Whose outputs are measured."""
        return self.config.queries.selection()

    @property
    def task(self) -> Task | DifferentiableTask:
        """The task, built once; queries and measures are checked against it."""
        return self.in_memory.get(self._build_task)

    @property
    def data_sets(self) -> dict[str, Arrays]:
        """The data sets that the task was built from, by key: what workers build it from too."""
        self.in_memory.get(self._build_task)
        return self.in_memory.arrays.loaded()

    def _build_task(self) -> Task | DifferentiableTask:
        from workers import loading, task_checks

        self._refuse_left_out("task.")
        task = loading.build_task(self.spec, self.in_memory.arrays)
        try:
            task_checks.check_queries(task, self.queries)
        except ConfigError as error:
            raise ConfigError(
                f"queries.indices: {error}" if self.queries.indices is not None else str(error)
            ) from error
        task_checks.check_measures(task, self.config.measures)
        return task

    @cached_property
    def plans(self) -> dict[str, DesignPlan]:
        """What will be trained, by design."""
        return plan_designs(self.config, self.task, kept_packs(self.config, self.paths))

    @property
    def t(self) -> int:
        """Number of queries measured."""
        return len(self.queries.take(self.task.n if self.queries.source == "train" else self.task.t))

    def data_hash(self) -> str:
        """Return a hash of the task's tensors and of its `fingerprint`; empty for a black box that tells none."""
        if self.in_memory.data_hash is None:
            self.in_memory.data_hash = data_hash(self.task)
        return self.in_memory.data_hash

    def state_bytes(self) -> dict[str, int]:
        """Return what each parameter and buffer of the task's module takes, in bytes; empty for a black box.

        A task that trains itself and has no `module()` is trained on a few examples to find out.
        """
        from workers.own_training import gradient_task

        if self.in_memory.state_bytes is None:
            seen = gradient_task(self.task)
            state = {} if seen is None else seen.module().state_dict()
            self.in_memory.state_bytes = {name: one.numel() * one.element_size() for name, one in state.items()}
        return self.in_memory.state_bytes

    def resolved_yaml(self) -> str:
        """Return the resolved configuration as the sweep keeps it: its hash first, and no secrets."""
        plain, secrets = self.config.kept()
        about: dict[str, Any] = {
            "hash": self.config.identity(),
            "content_hash": content_hash(yaml_format.load(yaml_format.dump(plain))),
        }
        if own := self.own_estimators():
            about["seal"] = seal_of(own)
        if left_out := sorted({*self.left_out, *secrets}):
            about["left_out"] = left_out
        return yaml_format.dump({**about, **plain})


def content_hash(raw: Mapping[str, Any]) -> str:
    """Return the hash of a whole configuration as plain data."""
    return hashlib.sha256(json.dumps(raw, sort_keys=True, default=str).encode()).hexdigest()[:16]


def empty_outputs(sweep: Sweep, measure: str) -> NDArray[np.float32] | None:
    """Return the outputs (t,) of a model of no data, where the task tells them (`measure_empty`)."""
    return empty_outputs_of(sweep.task, measure, sweep.queries)
