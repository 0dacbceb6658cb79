"""The section of one estimator: its name, the measure it attributes, its options, and those that are to be tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from orchestrator.config.grid import grid_of, points
from orchestrator.config.validation_errors import one_line
from workers.errors import ConfigError
from workers.named_code import names_code, source_file

if TYPE_CHECKING:
    from estimators.contract import Estimator, Need

UNCHECKED = "unchecked options"
"""Key of pydantic's validation context under which True leaves the estimators' options for when they are asked for."""


@dataclass(frozen=True)
class Given:
    """The section of an estimator as it was given, and the folder of the configuration."""

    section: Mapping[Any, Any]
    folder: Path


@dataclass(frozen=True)
class Candidate:
    """One point of the grid that is tuned over."""

    values: Mapping[str, Any]
    """The tuned options, as they were given."""
    options: Estimator
    """The estimator with these."""


class EstimatorSection(BaseModel):
    """One estimator: its name, the measure it attributes, and its own options.

    The options are kept as they were given; the estimator's class, whose import may take seconds, is asked only for `options`
    and `candidates`.
    """

    model_config = ConfigDict(frozen=True)

    estimator: str
    measure: str | None
    given: dict[Any, Any]
    """The options as plain data, but for the tuned ones; what is not among them is the class's default."""
    folder: Path
    """Where the file of an estimator of one's own is looked for."""
    tune: dict[str, tuple[Any, ...]] = {}
    """The options that are chosen by fitting runs, each with its values; empty where nothing is."""
    tune_on: str | None = None
    """The fitting design that chooses; None where there is one alone."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Given):
            raise ValueError(f"expected a mapping of options, or nothing, found {value!r}")
        own = dict(value.section)
        kind, measure = own.pop("estimator"), own.pop("measure", None)
        if not isinstance(kind, str):
            raise ValueError(f"expected the name of an estimator, found {kind!r}")
        tune, tune_on = grid_of(own.pop("tune", None), own), own.pop("tune_on", None)
        if tune_on is not None and not tune:
            raise ValueError("tune_on: says by which design `tune` chooses, and there is no `tune`")
        if not (info.context or {}).get(UNCHECKED):
            for point in points(tune):
                load(kind, value.folder).model_validate({**own, **point})
        parts = {"given": own, "folder": value.folder, "tune": tune, "tune_on": tune_on}
        return {"estimator": kind, "measure": measure, **parts}

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The estimator with the options of every point of the grid, validated; a single one where nothing is tuned.

        Raises ConfigError, one line, for an unknown estimator or wrong options. The code of one's own is run for that.
        """
        kind = load(self.estimator, self.folder)
        return tuple(Candidate(point, self._validated(kind, {**self.given, **point})) for point in points(self.tune))

    def _validated(self, kind: type[Estimator], options: Mapping[Any, Any]) -> Estimator:
        try:
            return kind.model_validate(options)
        except ValidationError as error:
            raise ConfigError(f"estimator {self.estimator}: {one_line(error, options, kind)}") from error

    @property
    def options(self) -> Estimator:
        """The estimator itself, its options validated; where some are tuned, with the first values of these.

        Raises as `candidates` does.
        """
        return self.candidates[0].options

    @property
    def needed(self) -> frozenset[Need]:
        """What it looks at, whichever values are chosen."""
        return frozenset().union(*(one.options.needed for one in self.candidates))

    @property
    def is_own(self) -> bool:
        """Whether it is one's own, named as a task is, and not a registered one."""
        return names_code(self.estimator)

    @property
    def file(self) -> Path | None:
        """The file of one's own; None for one that is registered, or in a module."""
        return source_file(self.estimator, self.folder)

    @property
    def code(self) -> str:
        """Where the code of one's own is, for people: a file, or a module."""
        return str(self.file or f"module {self.estimator.rpartition(':')[0]}")

    def resolved(self) -> dict[str, Any]:
        """Return what the resolved configuration says of this estimator."""
        options = {key: value for key, value in self.options.model_dump(mode="json").items() if key not in self.tune}
        tuned: dict[str, Any] = {"tune": {key: list(values) for key, values in self.tune.items()}} if self.tune else {}
        if self.tune_on is not None:
            tuned["tune_on"] = self.tune_on
        return {"estimator": self.estimator, "measure": self.measure, **tuned, **options}

    def __eq__(self, other: object) -> bool:
        """Say whether two sections come to the same, however much of it was written out."""
        if not isinstance(other, EstimatorSection):
            return NotImplemented
        return self._compared() == other._compared()

    def _compared(self) -> tuple[Any, ...]:
        candidates = [one.options for one in self.candidates]
        return self.estimator, self.measure, self.tune, self.tune_on, candidates


def load(estimator: str, folder: Path) -> type[Estimator]:
    """Return an estimator's class, one's own from a file relative to `folder`. Raises ConfigError where there is none."""
    from estimators import registry  # only now: estimators bring compilers and PyTorch with them

    return registry.load(estimator, folder)
