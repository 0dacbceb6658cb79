"""TRAK on models that are trained on random subsets, which it trains itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from estimators.contract import Need
from estimators.gradient_based.trak import Trak, TrakEffects
from estimators.subset_members import Member, trained_on_subsets

if TYPE_CHECKING:
    from estimators.evidence import Evidence
    from estimators.reference_estimator import Material


class TrakSubsets(Trak):
    """As `trak`, with members each trained on a random subset: Park et al. 2023, algorithm 1 (their alpha is `fraction`).

    Features, Gram matrix and residuals are of all n examples at every member, those that it was trained on and those not. Models
    of a sweep's subsets keep no parameters, so that the members are trained when the attribution is computed: `models` trainings
    on `fraction` n examples each, which are part of the attribution's own time (`training_seconds` in the details). It
    needs no reference models.

    >>> from estimators.gradient_based.trak_subsets import TrakSubsets
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = TrakSubsets(models=3).attribute(evidence)
    >>> made.values.shape, made.models, made.details["examples"]
    ((24, 4), 3, 12)
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "trak_subsets"
    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    models: int = Field(
        5,
        ge=1,
        description="how many models to train; a list, such as [1, 2, 5], makes an attribution with each, named by it",
    )
    fraction: float = Field(0.5, gt=0, le=1, description="share of the training examples that each is trained on")

    @model_validator(mode="after")
    def _not_kept(self) -> Self:
        if self.store:
            raise ValueError("store goes with reference models, and these members are trained anew: expected false")
        return self

    def references(self, evidence: Evidence) -> tuple[Member, ...]:
        """Train the members. Raises ConfigError for a task without gradients, DivergedError where a training fails."""
        return trained_on_subsets(evidence, self.models, self.fraction, self.name)

    def effects(self, material: Material) -> TrakSubsetsEffects:
        """Average over the members. Raises what `trak` raises."""
        return TrakSubsetsEffects(self, material)


class TrakSubsetsEffects(TrakEffects):
    """The Newton steps of the members, and what these took to train."""

    def details(self) -> Mapping[str, Any]:
        """Return what `trak` tells, how many examples a member was trained on, and the seconds of all trainings."""
        members = [one for one in self.material.references if isinstance(one, Member)]
        trained = {"examples": members[0].examples, "training_seconds": sum(one.seconds for one in members)}
        return {**super().details(), **trained}
