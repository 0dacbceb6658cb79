"""The sections of a configuration, validated: everything that a sweep is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orchestrator.config.estimator_section import EstimatorSection, Given
from orchestrator.config.numbers_of_models import each_number_of_models
from orchestrator.config.stopping_criteria import parse
from orchestrator.designs import AnyDesign
from orchestrator.store.paths import check_name
from orchestrator.store.secret_names import without_secrets
from workers.errors import StoreError, near
from workers.runs import Queries


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class TaskSection(Section):
    """What is trained."""

    name: str = Field(description="a built-in task, module:attribute, or path/to/file.py:attribute")
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the task")


class QueriesSection(Section):
    """Whose outputs are measured."""

    source: Literal["task", "train"] = Field("task", description="the task's queries, or its training examples")
    indices: tuple[int, ...] | None = Field(None, description="which of them; a list, or a range such as '0:100'")

    @field_validator("indices", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        if isinstance(value, str):
            first, colon, last = value.partition(":")
            if colon and first.strip().isdigit() and last.strip().isdigit() and int(first) < int(last):
                return tuple(range(int(first), int(last)))
            raise ValueError(f"{value!r} is not a range such as '0:100'")
        return value

    def selection(self) -> Queries:
        """Return the queries in the workers' words."""
        return Queries(self.source, self.indices)


class LdsSection(Section):
    """The linear datamodeling score."""

    design: str | None = Field(None, description="scoring design; may be left out when there is one")
    fresh: str | None = Field(
        None, description="design of kind `again`: its seeds check the noise ceiling; may be left out when there is one"
    )
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of the 95% interval")


class SpreadSection(Section):
    """The linear datamodeling score of the spread over seeds (docs/scores.md)."""

    design: str | None = Field(
        None, description="scoring design with 2 seeds or more; may be left out when there is one scoring design"
    )
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of the 95% interval")


class LooSection(Section):
    """The correlation with leave-one-out effects."""

    design: str | None = Field(None, description="leave_one_out design; may be left out when there is one")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of the 95% interval")


class DetectionSection(Section):
    """Finding the mislabelled examples that the task made on purpose."""

    better: Literal["higher", "lower"] | None = Field(
        None, description="which values of the measure are good; needed only for a measure of the task's own"
    )


class RemovalSection(Section):
    """Retraining without the best-valued and without the worst-valued examples."""

    BASELINE: ClassVar[str] = "random"
    """Label of the random order, unless an estimator of that name is among those valued."""

    estimators: tuple[str, ...] = Field(
        min_length=1, description="whose values decide; a random order is added to them"
    )
    fractions: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5), min_length=2, description="fractions of the examples removed, ascending"
    )
    seeds: int = Field(3, ge=1, description="trainings of each subset, with different seeds")
    order: tuple[Literal["best", "worst"], ...] = Field(("best", "worst"), min_length=1, description="who goes first")
    measure: str | None = Field(None, description="the curve's height; by default the first measure")
    better: Literal["higher", "lower"] | None = Field(
        None, description="which values of an estimator's measure are good; needed only for a measure of the task's own"
    )

    @field_validator("fractions")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if sorted(set(value)) != list(value):
            raise ValueError(f"{list(value)} is not ascending")
        return value

    @property
    def trainings(self) -> int:
        """The trainings of all curves, the random order's included."""
        labels = set(self.estimators)
        curves = len(set(self.order)) * len(labels) + (self.BASELINE not in labels)
        return curves * len(self.fractions) * self.seeds


class ScoresSection(Section):
    """How attributions are judged."""

    lds: LdsSection | None = Field(default_factory=LdsSection, description="null leaves it out")
    loo: LooSection | None = Field(default_factory=LooSection, description="null leaves it out")
    detection: DetectionSection | None = Field(
        default_factory=DetectionSection, description="where the task has mislabelled examples; null leaves it out"
    )
    spread: SpreadSection | None = Field(
        None, description="how well the spread over seeds is predicted; off unless given, {} for its defaults"
    )
    removal: RemovalSection | None = Field(None, description="removal curves, really retrained (docs/values.md)")


class StopSection(Section):
    """When a design knows enough (docs/values.md)."""

    when: str = Field(description="a criterion such as 'standard_error < 0.02 or (runs >= 5000 and hours >= 1)'")
    every: int = Field(200, ge=1, description="finished runs between two looks at it")
    estimator: str | None = Field(
        None, description="whose values are watched: one of the estimators, by default one that suits the design's kind"
    )

    @field_validator("when")
    @classmethod
    def _readable(cls, value: str) -> str:
        parse(value, "when")
        return value


class RaySection(Section):
    """Where it runs. Never changes what a run computes, and so is no part of a sweep's identity."""

    address: str = Field("local", description="local: embedded, attaches to nothing; else a cluster's address")
    workers: int | None = Field(None, ge=1, description="packs at once; null: as many as the resources allow")
    num_cpus: float = Field(1, gt=0, description="cores a pack asks for")
    num_gpus: float = Field(0, ge=0, description="GPUs a pack asks for; a fraction shares one")
    memory: int | None = Field(None, gt=0, description="bytes of memory a pack asks for")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where it is there and asked for")
    retries: int = Field(3, ge=0, description="system failures forgiven before a pack is split")
    in_flight: int = Field(2, ge=1, description="packs submitted for each that can run at once")
    patience: float = Field(30, ge=0, description="seconds that Ctrl-C waits for packs in flight")
    environment: tuple[str, ...] = Field(
        (),
        description="environment variables that the workers of `address: local` get besides, by name or by a pattern: AWS_*",
    )


class Config(Section):
    """A sweep."""

    name: str = Field(description="the sweep's name; by default the file's")
    seed: int = Field(0, ge=0, description="root of all randomness")
    task: TaskSection
    queries: QueriesSection = Field(default_factory=QueriesSection)
    measures: tuple[str, ...] = Field(
        min_length=1, description="what is recorded; the first one is attributed by default"
    )
    designs: dict[str, AnyDesign] = Field(
        min_length=1, description="which subsets are trained on, by a name of your own"
    )
    pack: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="runs a worker trains together, the unit of scheduling and of commit; auto: by the time they take",
    )
    folder: Path = Field(description="folder against which file names are resolved; by default the file's own")
    stop: dict[str, StopSection] = Field(default_factory=dict, description="by design: when to draw no more of it")
    estimators: dict[str, EstimatorSection] = Field(default_factory=dict, description="by name; options below each")
    scores: ScoresSection = Field(default_factory=ScoresSection)
    ray: RaySection = Field(default_factory=RaySection)

    @field_validator("stop", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("estimators", mode="before")
    @classmethod
    def _name_estimators(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return value
        folder = info.data.get("folder", Path())  # a field above this one
        filled = {label: {} if options is None else options for label, options in value.items()}
        return {
            label: Given({"estimator": label, **options}, folder) if isinstance(options, Mapping) else options
            for label, options in each_number_of_models(filled).items()
        }

    @field_validator("measures", "designs", "estimators")
    @classmethod
    def _plain_names(cls, value: tuple[str, ...] | dict[str, Any]) -> tuple[str, ...] | dict[str, Any]:
        for name in value:
            try:
                check_name(name)
            except StoreError as error:
                raise ValueError(str(error)) from error
        return value

    @field_validator("measures")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if value.count(name) > 1:
                raise ValueError(f"{name!r} is named twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for label, section in self.estimators.items():
            if section.measure is not None and section.measure not in self.measures:
                raise ValueError(
                    f"estimators.{label}.measure: {section.measure!r} is not recorded: "
                    f"{near(section.measure, list(self.measures))}"
                )
        for name, design in self.designs.items():
            if design.paired_with is not None and design.paired_with not in self.designs:
                known = near(design.paired_with, list(self.designs))
                raise ValueError(f"designs.{name}.paired_with: no design {design.paired_with!r}: {known}")
        for name, stop in self.stop.items():
            if name not in self.designs:
                raise ValueError(f"stop.{name}: no design of that name: {near(name, list(self.designs))}")
            if self.designs[name].watched_by is None:
                raise ValueError(f"stop.{name}: a design of kind {self.designs[name].kind!r} has no values to watch")
            if stop.estimator is not None and stop.estimator not in self.estimators:
                known = near(stop.estimator, list(self.estimators))
                raise ValueError(f"stop.{name}.estimator: no estimator {stop.estimator!r}: {known}")
            if stop.estimator is not None and self.estimators[stop.estimator].tune:
                raise ValueError(
                    f"stop.{name}.estimator: {stop.estimator!r} is tuned, which would be done anew at every look: "
                    "expected one with options of its own"
                )
        if (removal := self.scores.removal) is not None:
            for label in removal.estimators:
                if label not in self.estimators:
                    known = near(label, list(self.estimators))
                    raise ValueError(f"scores.removal.estimators: no estimator {label!r}: {known}")
            if removal.measure is not None and removal.measure not in self.measures:
                known = near(removal.measure, list(self.measures))
                raise ValueError(f"scores.removal.measure: {removal.measure!r} is not recorded: {known}")
        return self

    def resolved(self) -> dict[str, Any]:
        """Return the configuration with every default written out, as plain data."""
        rest = self.model_dump(mode="json", exclude={"estimators"})
        return {**rest, "estimators": {label: section.resolved() for label, section in self.estimators.items()}}

    def kept(self) -> tuple[dict[str, Any], list[str]]:
        """Return the resolved configuration without what looks like a secret, and the dotted keys of that.

        Looked at are the task's arguments and the estimators' options: of all else the names are ours, or no values.
        """
        plain = self.resolved()
        plain["task"]["arguments"], left_out = without_secrets(plain["task"]["arguments"], "task.arguments")
        for label, options in plain["estimators"].items():
            plain["estimators"][label], inside = without_secrets(options, f"estimators.{label}")
            left_out += inside
        return plain, left_out

    def identity(self) -> str:
        """Return the hash of what decides the runs."""
        return hashlib.sha256(json.dumps(self.deciding(), sort_keys=True).encode()).hexdigest()[:16]

    def deciding(self) -> dict[str, Any]:
        """Return what decides the runs, as plain data: seed, task, queries, measures, designs.

        Estimators, scores and resources are not in it: they may change over the same runs. Neither is the number of subsets
        (or permutations) of a random design: more of them may be drawn later, and the earlier ones stay what they are. Nor
        what looks like a secret: it may be replaced, and its hash would help to guess it.
        """
        runs = self.model_dump(mode="json", include={"seed", "task", "queries", "measures"})
        runs["task"]["arguments"], _ = without_secrets(runs["task"]["arguments"])
        return {**runs, "designs": {name: design.deciding() for name, design in self.designs.items()}}

    def sampled(self, fraction: float) -> Config:
        """Return the same sweep with about that fraction of every design's runs."""
        designs = {name: design.sample(fraction) for name, design in self.designs.items()}
        return self.model_copy(update={"designs": designs})
